package interop;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.MoreExecutors;
import java.net.URI;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import software.amazon.kinesis.producer.Attempt;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordFailedException;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * A KPL that puts records 0, 1, 2, ... until standard input ends; then it waits for every one of them.
 *
 * <p>Options: {@code --tls URL --stream NAME}, {@code --outstanding N} (500). It prints
 * {@code succeeded N} every hundred records, {@code failed ID REASON} for each that failed, and at the
 * end {@code done put=N succeeded=N failed=N}.
 */
public final class Producer {
    private static final int EVERY = 100;
    /** For so long it waits for the last results. */
    private static final Duration PATIENCE = Duration.ofMinutes(2);

    private final AtomicLong succeeded = new AtomicLong();
    private final AtomicLong failed = new AtomicLong();

    public static void main(String[] args) throws Exception {
        var options = new Options(args);
        var stop = new AtomicBoolean();
        StandardInput.onEnd(() -> stop.set(true));
        try {
            new Producer().run(options, stop);
        } catch (RuntimeException error) {
            error.printStackTrace();
            // The KPL has threads that would keep this program.
            System.exit(1);
        }
    }

    private void run(Options options, AtomicBoolean stop) throws InterruptedException {
        var stream = options.required("stream");
        long limit = options.number("outstanding").orElse(500L);
        var producer = new KinesisProducer(configuration(URI.create(options.required("tls"))));
        long id = 0;
        while (!stop.get()) {
            if (producer.getOutstandingRecordsCount() >= limit) {
                Thread.sleep(1);
                continue;
            }
            var put = producer.addUserRecord(stream, Ids.partitionKey(id), Ids.data(id));
            Futures.addCallback(put, new Outcome(id), MoreExecutors.directExecutor());
            id++;
        }
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (succeeded.get() + failed.get() < id) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException(producer.getOutstandingRecordsCount() + " records without a result");
            }
            producer.flush();
            Thread.sleep(20);
        }
        System.out.printf("done put=%d succeeded=%d failed=%d%n", id, succeeded.get(), failed.get());
        producer.destroy();
    }

    private static KinesisProducerConfiguration configuration(URI tls) {
        return new KinesisProducerConfiguration()
                .setCredentialsProvider(Aws.CREDENTIALS)
                .setRegion(Aws.REGION.id())
                .setKinesisEndpoint(tls.getHost())
                .setKinesisPort(tls.getPort())
                .setVerifyCertificate(false)
                .setMetricsLevel("none")
                // A record is to be put, however long a split or a busy machine holds it up.
                .setRecordTtl(Integer.MAX_VALUE)
                .setLogLevel("warning");
    }

    private final class Outcome implements FutureCallback<UserRecordResult> {
        private final long id;

        Outcome(long id) {
            this.id = id;
        }

        @Override
        public void onSuccess(UserRecordResult result) {
            long count = succeeded.incrementAndGet();
            if (count % EVERY == 0) {
                System.out.println("succeeded " + count);
            }
        }

        @Override
        public void onFailure(Throwable error) {
            System.out.println("failed " + id + " " + reason(error));
            failed.incrementAndGet();
        }
    }

    private static String reason(Throwable error) {
        if (error instanceof UserRecordFailedException refused) {
            var attempts = refused.getResult().getAttempts();
            Attempt last = attempts.get(attempts.size() - 1);
            return last.getErrorCode() + ": " + last.getErrorMessage();
        }
        return error.toString();
    }
}
