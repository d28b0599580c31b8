package interop;

import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.common.StreamIdentifier;
import software.amazon.kinesis.coordinator.CoordinatorConfig;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * One worker of the KCL, from the start of the stream, until SIGTERM (it hands over in order) or until
 * standard input ends (it stops dead).
 *
 * <p>Options: {@code --kinesis URL --dynamodb URL --stream NAME --application NAME --worker NAME};
 * {@code --retrieval polling}, else the KCL's default; {@code --failover-ms}, {@code --assignment-ms},
 * {@code --metrics-ms}, {@code --shard-sync-ms}, {@code --parent-poll-ms}, {@code --dispatch-ms}, else the
 * KCL's own; {@code --stamps true}: each line begins with the time.
 *
 * <p>It prints a line for each thing that happens, before it is checkpointed:
 * {@code state NAME}, {@code begin SHARD SEQUENCE}, {@code record SHARD ID}, {@code end SHARD},
 * {@code lost SHARD}, {@code stopping SHARD}, and at the end of an orderly stop {@code stopped}.
 */
public final class Worker {
    private Worker() {}

    public static void main(String[] args) {
        var options = new Options(args);
        Lines.stamped = options.optional("stamps").map(Boolean::parseBoolean).orElse(false);
        StandardInput.onEnd(() -> Runtime.getRuntime().halt(0));
        var scheduler = scheduler(options);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(scheduler), "stop"));
        scheduler.run();
    }

    private static Scheduler scheduler(Options options) {
        var kinesisUrl = options.required("kinesis");
        var kinesis = KinesisClientUtil.createKinesisAsyncClient(Aws.at(kinesisUrl, KinesisAsyncClient.builder()));
        var dynamodb = Aws.at(options.required("dynamodb"), DynamoDbAsyncClient.builder()).build();
        // Made because the KCL asks for one; no metric is ever sent.
        var cloudwatch = Aws.at(kinesisUrl, CloudWatchAsyncClient.builder()).build();
        var start = InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
        var stream = StreamIdentifier.singleStreamInstance(options.required("stream"));
        var configs = new ConfigsBuilder(
                new SingleStreamTracker(stream, start),
                options.required("application"),
                kinesis,
                dynamodb,
                cloudwatch,
                options.required("worker"),
                Processor::new);
        var retrieval = configs.retrievalConfig();
        switch (options.optional("retrieval").orElse("default")) {
            case "default" -> {}
            case "polling" -> retrieval.retrievalSpecificConfig(new PollingConfig(stream.streamName(), kinesis));
            default -> throw new IllegalArgumentException("--retrieval is default or polling");
        }
        return new Scheduler(
                configs.checkpointConfig(),
                coordination(configs.coordinatorConfig(), options),
                leases(configs.leaseManagementConfig(), options),
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                configs.processorConfig(),
                retrieval);
    }

    private static CoordinatorConfig coordination(CoordinatorConfig config, Options options) {
        options.number("parent-poll-ms").ifPresent(config::parentShardPollIntervalMillis);
        options.number("dispatch-ms").ifPresent(config::shardConsumerDispatchPollIntervalMillis);
        return config.workerStateChangeListener(state -> Lines.print("state " + state));
    }

    private static LeaseManagementConfig leases(LeaseManagementConfig config, Options options) {
        options.number("failover-ms").ifPresent(config::failoverTimeMillis);
        options.number("assignment-ms").ifPresent(config::leaseAssignmentIntervalMillis);
        options.number("shard-sync-ms").ifPresent(config::shardSyncIntervalMillis);
        var metrics = config.workerUtilizationAwareAssignmentConfig();
        options.number("metrics-ms").ifPresent(metrics::workerMetricsReporterFreqInMillis);
        return config;
    }

    private static void stop(Scheduler scheduler) {
        try {
            if (scheduler.startGracefulShutdown().get(60, TimeUnit.SECONDS)) {
                Lines.print("stopped");
            }
        } catch (InterruptedException | ExecutionException | TimeoutException error) {
            error.printStackTrace();
        }
    }
}
