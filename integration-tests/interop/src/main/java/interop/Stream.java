package interop;

import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Collectors;
import java.util.stream.LongStream;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.model.PutRecordsRequestEntry;
import software.amazon.awssdk.services.kinesis.model.Record;
import software.amazon.awssdk.services.kinesis.model.Shard;
import software.amazon.awssdk.services.kinesis.model.ShardIteratorType;

/** A stream, through the plain SDK: neither the KPL nor the KCL has a part in it. */
final class Stream {
    final String name;
    private final KinesisAsyncClient kinesis;

    Stream(KinesisAsyncClient kinesis, String name) {
        this.kinesis = kinesis;
        this.name = name;
    }

    static Stream create(KinesisAsyncClient kinesis, String name, int shards) {
        kinesis.createStream(request -> request.streamName(name).shardCount(shards)).join();
        kinesis.waiter().waitUntilStreamExists(request -> request.streamName(name)).join();
        return new Stream(kinesis, name);
    }

    List<Shard> shards() {
        return kinesis.listShards(request -> request.streamName(name)).join().shards();
    }

    /** The parents of each shard, by its id. */
    Map<String, List<String>> parents() {
        var parents = new HashMap<String, List<String>>();
        for (var shard : shards()) {
            var both = new ArrayList<>(Arrays.asList(shard.parentShardId(), shard.adjacentParentShardId()));
            both.removeIf(Objects::isNull);
            parents.put(shard.shardId(), both);
        }
        return parents;
    }

    /** Splits a shard in its middle. */
    void split(Shard shard) {
        var range = shard.hashKeyRange();
        var first = new BigInteger(range.startingHashKey());
        var last = new BigInteger(range.endingHashKey());
        var middle = first.add(last).shiftRight(1).toString();
        kinesis.splitShard(request ->
                        request.streamName(name).shardToSplit(shard.shardId()).newStartingHashKey(middle))
                .join();
        kinesis.waiter().waitUntilStreamExists(request -> request.streamName(name)).join();
    }

    List<String> fanOutConsumers() {
        var arn = kinesis.describeStreamSummary(request -> request.streamName(name))
                .join()
                .streamDescriptionSummary()
                .streamARN();
        var consumers = kinesis.listStreamConsumers(request -> request.streamARN(arn)).join().consumers();
        return consumers.stream().map(consumer -> consumer.consumerName()).collect(Collectors.toList());
    }

    /** Puts records from..to, each until it is there; how many went to which shard. */
    Map<String, Integer> put(long from, long to) {
        var counts = new HashMap<String, Integer>();
        var left = LongStream.range(from, to).boxed().collect(Collectors.toList());
        while (!left.isEmpty()) {
            var entries = left.stream().map(Stream::entry).collect(Collectors.toList());
            var results = kinesis.putRecords(request -> request.streamName(name).records(entries))
                    .join()
                    .records();
            var refused = new ArrayList<Long>();
            for (int i = 0; i < results.size(); i++) {
                if (results.get(i).errorCode() == null) {
                    counts.merge(results.get(i).shardId(), 1, Integer::sum);
                } else {
                    refused.add(left.get(i));
                }
            }
            left = refused;
        }
        return counts;
    }

    private static PutRecordsRequestEntry entry(long id) {
        var data = SdkBytes.fromByteBuffer(Ids.data(id));
        return PutRecordsRequestEntry.builder().partitionKey(Ids.partitionKey(id)).data(data).build();
    }

    /** All that a shard holds, to its end, or to where it has caught up. */
    List<Record> records(Shard shard) {
        var iterator = kinesis.getShardIterator(request -> request.streamName(name)
                        .shardId(shard.shardId())
                        .shardIteratorType(ShardIteratorType.TRIM_HORIZON))
                .join()
                .shardIterator();
        var all = new ArrayList<Record>();
        while (iterator != null) {
            var from = iterator;
            var page = kinesis.getRecords(request -> request.shardIterator(from)).join();
            all.addAll(page.records());
            if (page.millisBehindLatest() == 0 && page.records().isEmpty()) {
                break;
            }
            iterator = page.nextShardIterator();
        }
        return all;
    }
}
