package interop;

import java.math.BigInteger;
import java.util.BitSet;
import java.util.List;
import java.util.stream.Collectors;
import software.amazon.awssdk.services.kinesis.model.Shard;
import software.amazon.kinesis.retrieval.AggregatorUtil;
import software.amazon.kinesis.retrieval.KinesisClientRecord;

/** What is in a stream, aggregates opened. */
final class Oracle {
    private final BitSet stored = new BitSet();
    private final BitSet delivered = new BitSet();
    private long written;
    private long copies;

    Oracle(Stream stream) {
        var opener = new AggregatorUtil();
        for (var shard : stream.shards()) {
            var records = stream.records(shard).stream()
                    .map(KinesisClientRecord::fromRecord)
                    .collect(Collectors.toList());
            written += records.size();
            for (var record : opener.deaggregate(copied(records))) {
                stored.set(Math.toIntExact(Ids.of(record.data())));
                copies++;
            }
            for (var record : opener.deaggregate(records, first(shard), last(shard))) {
                delivered.set(Math.toIntExact(Ids.of(record.data())));
            }
        }
    }

    /** Opening an aggregate reads its buffer to the end. */
    private static List<KinesisClientRecord> copied(List<KinesisClientRecord> records) {
        return records.stream()
                .map(record -> record.toBuilder().data(record.data().duplicate()).build())
                .collect(Collectors.toList());
    }

    private static BigInteger first(Shard shard) {
        return new BigInteger(shard.hashKeyRange().startingHashKey());
    }

    private static BigInteger last(Shard shard) {
        return new BigInteger(shard.hashKeyRange().endingHashKey());
    }

    /** Whether records 0..count are all there. */
    boolean report(String name, int count) {
        int lost = count - stored.get(0, count).cardinality();
        // A KCL drops an aggregate if one of its keys lies outside the range of the shard; the KPL
        // acknowledges the others. That is how the two are, on AWS too, and not for testkit to judge.
        int dropped = stored.cardinality() - delivered.cardinality();
        System.out.printf(
                "%s: records=%d lost=%d repeated=%d kinesis-records=%d dropped-by-a-kcl=%d%n",
                name, count, lost, copies - stored.cardinality(), written, dropped);
        return lost == 0;
    }
}
