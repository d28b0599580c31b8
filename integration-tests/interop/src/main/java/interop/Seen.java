package interop;

import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;

/** What a worker has said it saw, line by line. */
final class Seen implements Consumer<String> {
    private final String name;
    private final Progress progress;
    private final BitSet ids = new BitSet();
    private final Map<String, Integer> records = new HashMap<>();
    private final Set<String> ended = new HashSet<>();
    /** Which shards had ended when a shard began. */
    private final Map<String, Set<String>> endedBefore = new HashMap<>();
    private final List<String> unknown = new ArrayList<>();
    private long deliveries;
    private boolean stopped;

    Seen(String name, Progress progress) {
        this.name = name;
        this.progress = progress;
    }

    @Override
    public void accept(String line) {
        take(line.split(" "));
        progress.changed();
    }

    private synchronized void take(String[] words) {
        switch (words[0]) {
            case "begin" -> endedBefore.putIfAbsent(words[1], Set.copyOf(ended));
            case "record" -> {
                deliveries++;
                records.merge(words[1], 1, Integer::sum);
                ids.set(Integer.parseInt(words[2]));
            }
            case "end" -> ended.add(words[1]);
            case "stopped" -> stopped = true;
            case "state", "lost", "stopping" -> {}
            default -> unknown.add(String.join(" ", words));
        }
    }

    synchronized int records(String shard) {
        return records.getOrDefault(shard, 0);
    }

    synchronized boolean hasEnded(String shard) {
        return ended.contains(shard);
    }

    synchronized boolean hasAll(int count) {
        return ids.nextClearBit(0) >= count;
    }

    /** How far it is, in words. */
    synchronized String soFar(int count) {
        int seen = ids.get(0, count).cardinality();
        var missing = seen < count ? ", not yet " + ids.nextClearBit(0) : "";
        return "%s has seen %d of %d records%s; ended: %s".formatted(name, seen, count, missing, ended);
    }

    synchronized boolean hasStopped() {
        return stopped;
    }

    /** Whether nothing is missing, nothing was made up, and no shard began before its parents' end. */
    synchronized boolean report(int count, Map<String, List<String>> parents) {
        int lost = count - ids.get(0, count).cardinality();
        int madeUp = ids.length() > count ? ids.get(count, ids.length()).cardinality() : 0;
        long repeated = deliveries - ids.cardinality();
        long early = endedBefore.entrySet().stream()
                .filter(begun -> !begun.getValue().containsAll(parents.get(begun.getKey())))
                .count();
        boolean everyShard = endedBefore.keySet().equals(parents.keySet());
        System.out.printf(
                "%s: records=%d lost=%d repeated=%d made-up=%d shards=%d of %d children-before-parents=%d%n",
                name, count, lost, repeated, madeUp, endedBefore.size(), parents.size(), early);
        unknown.forEach(line -> System.out.println(name + " said: " + line));
        return lost == 0 && madeUp == 0 && everyShard && early == 0 && unknown.isEmpty();
    }
}
