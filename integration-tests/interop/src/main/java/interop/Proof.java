package interop;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.stream.Collectors;

/**
 * The published KPL and KCL, as they come, on the services at these addresses.
 *
 * <p>Options: {@code --kinesis URL --dynamodb URL --tls URL --certificate FILE --logs FOLDER},
 * {@code --seconds N} until it gives up (300).
 *
 * <p>Into one stream a KPL writes while a shard splits: every record must succeed and be in the stream.
 * From another stream two KCLs read, one by fan-out and one polling, through two shards and a split:
 * each must see every record, and no child before its parent's end. There a KPL writes before the
 * split, the plain SDK across it: of an aggregate that a split straddles a KCL drops what the KPL has
 * acknowledged, and this proof is not about that.
 */
public final class Proof {
    private static final String SPLIT = "shardId-000000000000";
    /** Most records that a KPL has under way. */
    private static final long OUTSTANDING = 500;

    private final Options options;
    private final Path logs;
    private final Progress progress;
    private final List<Child> children = new ArrayList<>();
    private final List<Boolean> verdicts = new ArrayList<>();

    private Proof(Options options) {
        this.options = options;
        logs = Path.of(options.required("logs"));
        progress = new Progress(options.number("seconds").orElse(300L));
    }

    public static void main(String[] args) throws Exception {
        var proof = new Proof(new Options(args));
        boolean good = false;
        try {
            good = proof.run();
        } catch (Exception error) {
            System.out.println("FAILED: " + (error instanceof Failure ? error.getMessage() : error));
        }
        if (!good) {
            for (var child : proof.children) {
                System.out.printf("-- the end of the log of %s%n%s%n", child.name, child.logTail());
            }
        }
        for (var child : proof.children) {
            child.close();
        }
        System.out.println(good ? "interop: all good, lost=0" : "interop: FAILED");
        // Threads of the SDK may still be around.
        System.exit(good ? 0 : 1);
    }

    private boolean run() throws Exception {
        Files.createDirectories(logs);
        var certificate = Path.of(options.required("certificate"));
        try (var kinesis = Aws.kinesisOverTls(options.required("tls"), certificate)) {
            var produced = Stream.create(kinesis, "produced", 2);
            var consumed = Stream.create(kinesis, "consumed", 2);
            var fanOut = new Seen("KCL by fan-out", progress);
            var polling = new Seen("KCL polling", progress);
            var fanOutWorker = worker("fan-out", consumed, "default", fanOut);
            var pollingWorker = worker("polling", consumed, "polling", polling);

            producedThroughASplit(produced);
            int count = writtenThroughASplit(consumed, List.of(fanOut, polling));

            for (var seen : List.of(fanOut, polling)) {
                progress.await(() -> seen.soFar(count), () -> seen.hasAll(count) && seen.hasEnded(SPLIT));
            }
            stop(fanOutWorker, fanOut);
            stop(pollingWorker, polling);
            verdicts.add(new Oracle(consumed).report("the stream they read", count));
            verdicts.add(fanOut.report(count, consumed.parents()));
            verdicts.add(polling.report(count, consumed.parents()));
            var registered = consumed.fanOutConsumers();
            if (!registered.equals(List.of("fan-out"))) {
                throw new Failure("registered consumers are " + registered + ", not that of the default alone");
            }
        }
        return !verdicts.contains(false);
    }

    /** The KPL writes across the split. */
    private void producedThroughASplit(Stream stream) throws Exception {
        var kpl = new Kpl(stream);
        kpl.awaitSucceeded(500);
        stream.split(stream.shards().get(0));
        // More than are under way at the time of the split, so that most are put after it.
        kpl.awaitSucceeded(4 * OUTSTANDING);
        int count = kpl.finish();
        verdicts.add(new Oracle(stream).report("KPL across a split", count));
        for (var shard : stream.shards()) {
            if (stream.records(shard).isEmpty()) {
                throw new Failure("nothing was written to " + shard.shardId() + ": the split came too late");
            }
        }
    }

    /** The KPL writes, then the plain SDK across the split; how many records there are. */
    private int writtenThroughASplit(Stream stream, List<Seen> readers) throws Exception {
        var kpl = new Kpl(stream);
        kpl.awaitSucceeded(1000);
        int begun = kpl.finish();
        for (var shard : stream.shards()) {
            progress.await("both workers read " + shard.shardId(),
                    () -> readers.stream().allMatch(seen -> seen.records(shard.shardId()) > 0));
        }
        var writer = new Writer(stream, begun);
        writer.awaitPut(2, 200);
        stream.split(stream.shards().get(0));
        writer.awaitPut(4, 200);
        return writer.finish();
    }

    private Child worker(String name, Stream stream, String retrieval, Seen seen) throws Exception {
        return start(name, Worker.class, seen,
                "--kinesis", options.required("kinesis"), "--dynamodb", options.required("dynamodb"),
                "--stream", stream.name, "--application", name, "--worker", name + "-1",
                "--retrieval", retrieval,
                // Faster than the KCL's own, which are for fleets; none changes what it does.
                "--failover-ms", "5000", "--assignment-ms", "1000", "--metrics-ms", "1000",
                "--shard-sync-ms", "1000", "--parent-poll-ms", "500", "--dispatch-ms", "200");
    }

    private Child start(String name, Class<?> program, Consumer<String> onLine, String... args) throws Exception {
        var child = new Child(name, logs, program, onLine, args);
        children.add(child);
        progress.expect(child);
        return child;
    }

    private void stop(Child worker, Seen seen) throws Exception {
        progress.release(worker);
        worker.terminate();
        if (!worker.exited(progress.left()) || !seen.hasStopped()) {
            throw new Failure(worker.name + " did not stop in order");
        }
        progress.reached(worker.name + " has stopped in order");
    }

    /** A KPL in a process of its own. */
    private final class Kpl {
        private final Child child;
        private final AtomicLong succeeded = new AtomicLong();
        private final List<String> complaints = new ArrayList<>();
        private volatile String done;

        Kpl(Stream stream) throws Exception {
            child = start("kpl-" + stream.name, Producer.class, this::take,
                    "--tls", options.required("tls"), "--stream", stream.name,
                    "--outstanding", Long.toString(OUTSTANDING));
        }

        private void take(String line) {
            var words = line.split(" ", 2);
            switch (words[0]) {
                case "succeeded" -> succeeded.set(Long.parseLong(words[1]));
                case "done" -> done = words[1];
                default -> complaints.add(line);
            }
            progress.changed();
        }

        /** Waits until so many more have succeeded. */
        void awaitSucceeded(long more) throws Exception {
            long target = succeeded.get() + more;
            progress.await(child.name + " has put " + more + " more", () -> succeeded.get() >= target);
        }

        /** Stops it; how many it put, all of which must have succeeded. */
        int finish() throws Exception {
            child.finish();
            progress.await(child.name + " knows of every record", () -> done != null);
            progress.release(child);
            if (!child.exited(progress.left())) {
                throw new Failure(child.name + " did not exit");
            }
            int put = Integer.parseInt(done.replaceAll("put=(\\d+) .*", "$1"));
            if (!done.equals("put=%1$d succeeded=%1$d failed=0".formatted(put))) {
                throw new Failure(child.name + " said " + done + ", first of all " + complaints.stream()
                        .limit(3).collect(Collectors.joining("; ")));
            }
            return put;
        }
    }

    /** The plain SDK, writing until it is told to stop. */
    private final class Writer {
        private static final int BATCH = 20;

        private final AtomicBoolean stop = new AtomicBoolean();
        private final Map<String, Integer> counts = new HashMap<>();
        private final CompletableFuture<Long> written;

        Writer(Stream stream, long from) {
            written = CompletableFuture.supplyAsync(() -> write(stream, from));
        }

        private long write(Stream stream, long from) {
            long next = from;
            while (!stop.get()) {
                var put = stream.put(next, next + BATCH);
                next += BATCH;
                synchronized (counts) {
                    put.forEach((shard, count) -> counts.merge(shard, count, Integer::sum));
                }
                progress.changed();
            }
            return next;
        }

        /** Waits until it has put so many into each of so many shards. */
        void awaitPut(int shards, int records) throws Exception {
            progress.await("the writer has put " + records + " into each of " + shards + " shards", () -> {
                if (written.isCompletedExceptionally()) {
                    written.join();
                }
                synchronized (counts) {
                    return counts.values().stream().filter(count -> count >= records).count() >= shards;
                }
            });
        }

        int finish() {
            stop.set(true);
            return Math.toIntExact(written.join());
        }
    }
}
