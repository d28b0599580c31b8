use super::*;
use crate::clock::ManualClock;

fn faults(seed: u64) -> Faults {
    Faults::new(seed, Arc::new(ManualClock::default()))
}

fn part(resource: &str, shard: &str) -> Part {
    Part { resource: Some(resource.to_owned()), shard: Some(shard.to_owned()) }
}

fn put_records(parts: Vec<Part>) -> Call<'static> {
    Call {
        service: Service::Kinesis,
        operation: "PutRecords",
        parts,
        batch: true,
        asks: Asks::default(),
    }
}

#[test]
fn a_fault_strikes_only_where_all_its_conditions_hold() {
    let faults = faults(0);
    let id = faults.add(
        Fault::throttle()
            .service(Service::Kinesis)
            .operation("PutRecords")
            .resource("orders")
            .shard("s1"),
    );
    let stopped = |call: &Call<'_>| faults.plan(call).stop.is_some();
    assert!(!stopped(&put_records(vec![part("orders", "s0")])));
    assert!(!stopped(&put_records(vec![part("others", "s1")])));
    assert!(!stopped(&put_records(vec![Part::default()])));
    let other = Call { operation: "PutRecord", ..put_records(vec![part("orders", "s1")]) };
    assert!(!stopped(&other));
    assert_eq!(faults.count(id), 0);
    assert!(stopped(&put_records(vec![part("orders", "s0"), part("orders", "s1")])));
    assert_eq!(faults.count(id), 1);
    let injected = faults.injected();
    assert_eq!(injected.len(), 1);
    assert_eq!(injected[0].shard.as_deref(), Some("s1"));
}

#[test]
fn skip_and_times_choose_which_requests_are_struck() {
    let faults = faults(0);
    let id = faults.add(Fault::response_lost().skip(2).times(2));
    let struck: Vec<bool> =
        (0..6).map(|_| faults.plan(&put_records(vec![part("a", "0")])).lose_response).collect();
    assert_eq!(struck, [false, false, true, true, false, false]);
    assert_eq!(faults.count(id), 2);
}

#[test]
fn the_same_seed_strikes_the_same_requests_and_about_as_often_as_asked() {
    let run = |seed| -> Vec<bool> {
        let faults = faults(seed);
        faults.add(Fault::throttle().probability(0.3));
        (0..1000).map(|_| faults.plan(&put_records(vec![part("a", "0")])).stop.is_some()).collect()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let struck = run(7).iter().filter(|struck| **struck).count();
    assert!((200..400).contains(&struck), "{struck} of 1000");
}

#[test]
fn entries_are_refused_one_by_one_and_delays_add_up() {
    let faults = faults(0);
    faults.add(Fault::refuse_entry("InternalFailure").shard("s1").times(1));
    faults.add(Fault::delay(Duration::from_millis(2)));
    faults.add(Fault::delay(Duration::from_millis(3)));
    let parts = vec![part("a", "s0"), part("a", "s1"), part("a", "s1")];
    let plan = faults.plan(&put_records(parts));
    assert_eq!(plan.refused.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(plan.delay, Duration::from_millis(5));
    assert_eq!(faults.injected()[0].entry, Some(1));
    let single = Call { batch: false, ..put_records(vec![part("a", "s1")]) };
    assert!(faults.plan(&single).refused.is_empty());
}

#[test]
fn a_removed_fault_no_longer_strikes_but_stays_counted() {
    let faults = faults(0);
    let id = faults.add(Fault::cut_connection());
    assert_eq!(faults.plan(&put_records(vec![Part::default()])).stop, Some(Stop::Cut));
    faults.remove(id);
    assert!(faults.is_empty());
    assert!(faults.plan(&put_records(vec![Part::default()])).stop.is_none());
    assert_eq!(faults.count(id), 1);
}

#[test]
fn a_fault_strikes_from_when_it_is_due_and_for_as_long_as_it_lasts() {
    let clock = ManualClock::default();
    let faults = Faults::new(0, Arc::new(clock.clone()));
    let second = Duration::from_secs(1);
    clock.advance(second);
    let brownout = faults.add(Fault::brownout(2 * second).after(3 * second));
    let struck: Vec<bool> = (0..7)
        .map(|_| {
            let plan = faults.plan(&put_records(vec![part("a", "0")]));
            clock.advance(second);
            plan.stop.is_some()
        })
        .collect();
    assert_eq!(struck, [false, false, false, true, true, false, false]);
    assert_eq!(faults.count(brownout), 2);
}

#[test]
fn a_script_says_all_that_a_fault_can() {
    let faults = faults(0);
    let script = r#"[
        {"kind": "throttle", "service": "dynamodb", "operation": "PutItem", "probability": 0.25},
        {"kind": "delay", "by": "1.5s", "skip": 1, "times": 2},
        {"kind": "refuse-entry", "code": "InternalFailure", "message": "no", "resource": "a", "shard": "0"},
        {"kind": "refuse", "code": "X", "after": "2m", "lasting": "1h"},
        {"kind": "stale-index", "by": "250ms"},
        {"kind": "no-old-item"}
    ]"#;
    assert_eq!(faults.load(script).unwrap().len(), 6);
    let plans: Vec<_> =
        (0..4).map(|_| faults.plan(&put_records(vec![part("a", "0"), part("a", "1")]))).collect();
    let second = Duration::from_millis(1500);
    let delays: Vec<_> = plans.iter().map(|plan| plan.delay).collect();
    assert_eq!(delays, [Duration::ZERO, second, second, Duration::ZERO]);
    assert!(plans.iter().all(|plan| plan.refused.len() == 1 && plan.stop.is_none()));
    let refused = &plans[0].refused[&0];
    assert_eq!((&*refused.code, &*refused.message), ("InternalFailure", "no"));
    assert_eq!(faults.stalest_index(), Some(Duration::from_millis(250)));
}

#[test]
fn a_script_with_a_mistake_adds_nothing_and_names_it() {
    for (fault, problem) in [
        (r#"{"kind": "delay"}"#, "duration `by`"),
        (r#"{"kind": "delay", "by": "5"}"#, "\"5\" is no duration"),
        (r#"{"kind": "delay", "by": "s"}"#, "\"s\" is no duration"),
        (r#"{"kind": "refuse"}"#, "`code`"),
        (r#"{"kind": "throttle", "probability": 1.5}"#, "no probability"),
        (r#"{"kind": "throttle", "lasting": "-1s"}"#, "no duration"),
    ] {
        let faults = faults(0);
        let script = format!(r#"[{{"kind": "throttle"}}, {fault}]"#);
        let error = faults.load(&script).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("fault 2"), "{message}");
        assert!(message.contains(problem), "{message}");
        assert!(faults.is_empty());
    }
    for syntax in ["", "{}", r#"[{"kind": "flood"}]"#, r#"[{"kind": "throttle", "when": 1}]"#] {
        let error = faults(0).load(syntax).unwrap_err();
        assert!(matches!(error, FaultScriptError::Json(_)), "{syntax}");
    }
}
