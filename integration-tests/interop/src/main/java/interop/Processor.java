package interop;

import java.util.stream.Collectors;
import software.amazon.kinesis.exceptions.InvalidStateException;
import software.amazon.kinesis.exceptions.ShutdownException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;

/** Prints what it is told, then checkpoints it. */
final class Processor implements ShardRecordProcessor {
    private String shard;

    @Override
    public void initialize(InitializationInput input) {
        shard = input.shardId();
        Lines.print("begin " + shard + " " + input.extendedSequenceNumber().sequenceNumber());
    }

    @Override
    public void processRecords(ProcessRecordsInput input) {
        if (input.records().isEmpty()) {
            return;
        }
        Lines.print(input.records().stream()
                .map(record -> "record " + shard + " " + Ids.of(record.data()))
                .collect(Collectors.joining("\n")));
        checkpoint(input.checkpointer());
    }

    @Override
    public void leaseLost(LeaseLostInput input) {
        Lines.print("lost " + shard);
    }

    @Override
    public void shardEnded(ShardEndedInput input) {
        Lines.print("end " + shard);
        checkpoint(input.checkpointer());
    }

    @Override
    public void shutdownRequested(ShutdownRequestedInput input) {
        Lines.print("stopping " + shard);
        checkpoint(input.checkpointer());
    }

    private static void checkpoint(RecordProcessorCheckpointer checkpointer) {
        try {
            checkpointer.checkpoint();
        } catch (ShutdownException lost) {
            // Another worker has the lease: it gets these records again, which is its right.
        } catch (InvalidStateException error) {
            throw new IllegalStateException(error);
        }
    }
}
