//! A consumer that subscribes again and again, under random histories.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::super::Settings;
use super::*;

const SHARD: ShardId = ShardId(0);

#[derive(Debug, Clone)]
enum Step {
    Put(usize),
    Split,
    Wait(u64),
    /// Receives events for as long as there are some.
    Receive,
    /// Loses the connection, as far as the client can tell, and subscribes again when it may.
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..20usize).prop_map(Step::Put),
        1 => Just(Step::Split),
        3 => (0..20_000u64).prop_map(Step::Wait),
        4 => Just(Step::Receive),
        1 => Just(Step::Reconnect),
    ]
}

struct World {
    kinesis: Kinesis,
    now: Timestamp,
    arn: String,
    put: usize,
    split: bool,
    subscription: Subscription,
    seen: Vec<usize>,
    continuation: Option<String>,
    done: bool,
}

impl World {
    fn new(limits: bool) -> Self {
        let now = Timestamp::from_millis(1_767_225_600_000);
        let mut kinesis = Kinesis::new(Settings {
            shard_limits: limits,
            subscription_time: Duration::from_secs(30),
            ..Settings::default()
        });
        kinesis.create_provisioned(now, "s", 1).unwrap();
        let register = json!({
            "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/s", "ConsumerName": "app",
        });
        let register = serde_json::from_value(register).unwrap();
        kinesis.register_stream_consumer(now, register).unwrap();
        let arn = kinesis.stream(now, named("s")).unwrap().consumers[0].arn.clone();
        let subscription = subscribe(&mut kinesis, now, &arn, None).unwrap();
        Self {
            kinesis,
            now,
            arn,
            put: 0,
            split: false,
            subscription,
            seen: Vec::new(),
            continuation: None,
            done: false,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Put(count) => {
                for _ in 0..if self.split { 0 } else { *count } {
                    let stream = self.kinesis.stream(self.now, named("s")).unwrap();
                    // Large enough for an event not to hold everything.
                    let (key, data) = (self.put.to_string(), Bytes::from_static(&[0; 100_000]));
                    let shard = stream.shard_mut(SHARD);
                    shard.append(self.now, key.into(), None, data, false);
                    self.put += 1;
                }
            }
            Step::Split if !self.split => {
                let stream = self.kinesis.stream(self.now, named("s")).unwrap();
                stream.split(self.now, SHARD, 1 << 127);
                self.split = true;
            }
            Step::Split => {}
            Step::Wait(millis) => self.now = self.now.plus(Duration::from_millis(*millis)),
            Step::Receive => self.receive(),
            Step::Reconnect => self.reconnect(),
        }
    }

    fn receive(&mut self) {
        while !self.done {
            match self.kinesis.next_event(self.now, &mut self.subscription) {
                Ok(Next::Send(event)) => self.see(&event),
                Ok(Next::Wait(time)) => {
                    assert!(time > Duration::ZERO);
                    return;
                }
                Ok(Next::End) => self.reconnect(),
                other => panic!("{other:?}"),
            }
        }
        let end = self.kinesis.next_event(self.now, &mut self.subscription);
        assert!(matches!(end, Ok(Next::End)) || self.kinesis.subscriptions() == 0);
    }

    fn see(&mut self, event: &SubscribeToShardEvent) {
        let numbers = event.records.iter().map(|record| &*record.partition_key);
        self.seen.extend(numbers.map(|number| number.parse::<usize>().unwrap()));
        self.done = event.child_shards.is_some();
        let continuation = event.continuation_sequence_number;
        assert_eq!(continuation.is_none(), self.done);
        if let Some(number) = continuation {
            self.continuation = Some(number.to_string());
        }
    }

    fn reconnect(&mut self) {
        if self.done {
            return;
        }
        let after = self.continuation.as_deref();
        let again = subscribe(&mut self.kinesis, self.now, &self.arn, after);
        let again = again.unwrap_or_else(|refusal| {
            let expected = ["ResourceInUseException", "LimitExceededException"];
            assert!(expected.contains(&&*refusal.code), "{refusal:?}");
            self.now = self.now.plus(TAKEOVER_AFTER);
            subscribe(&mut self.kinesis, self.now, &self.arn, after).unwrap()
        });
        let mut old = std::mem::replace(&mut self.subscription, again);
        // A subscription that was taken over gets nothing any more.
        let late = self.kinesis.next_event(self.now, &mut old);
        assert!(late.is_err(), "{late:?}");
        self.kinesis.leave(&old);
        assert_eq!(self.kinesis.subscriptions(), 1);
    }
}

fn subscribe(
    kinesis: &mut Kinesis,
    now: Timestamp,
    arn: &str,
    after: Option<&str>,
) -> Result<Subscription, ApiError> {
    let start = match after {
        None => json!({ "Type": "TRIM_HORIZON" }),
        Some(number) => json!({ "Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number }),
    };
    let request = json!({
        "ConsumerARN": arn, "ShardId": SHARD.to_string(), "StartingPosition": start,
    });
    kinesis.subscribe_to_shard(now, &serde_json::from_value(request).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_subscriber_that_goes_on_where_it_was_gets_every_record_once_and_in_order(
        steps in prop::collection::vec(step(), 1..40),
        limits in any::<bool>(),
    ) {
        let mut world = World::new(limits);
        for step in &steps {
            world.take(step);
        }
        world.take(&Step::Split);
        for _ in 0..1_000 {
            world.take(&Step::Receive);
            world.take(&Step::Wait(1_000));
        }
        prop_assert!(world.done);
        prop_assert_eq!(world.seen, (0..world.put).collect::<Vec<_>>());
        prop_assert_eq!(world.kinesis.subscriptions(), 0);
    }
}
