use super::*;

fn part(resource: &str, shard: &str) -> Part {
    Part {
        resource: Some(resource.to_owned()),
        shard: Some(shard.to_owned()),
    }
}

fn put_records(parts: Vec<Part>) -> Call<'static> {
    Call {
        service: Service::Kinesis,
        operation: "PutRecords",
        parts,
        batch: true,
    }
}

#[test]
fn a_fault_strikes_only_where_all_its_conditions_hold() {
    let faults = Faults::new(0);
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
    let other = Call {
        operation: "PutRecord",
        ..put_records(vec![part("orders", "s1")])
    };
    assert!(!stopped(&other));
    assert_eq!(faults.count(id), 0);
    assert!(stopped(&put_records(vec![
        part("orders", "s0"),
        part("orders", "s1")
    ])));
    assert_eq!(faults.count(id), 1);
    let injected = faults.injected();
    assert_eq!(injected.len(), 1);
    assert_eq!(injected[0].shard.as_deref(), Some("s1"));
}

#[test]
fn skip_and_times_choose_which_requests_are_struck() {
    let faults = Faults::new(0);
    let id = faults.add(Fault::response_lost().skip(2).times(2));
    let struck: Vec<bool> = (0..6)
        .map(|_| {
            faults
                .plan(&put_records(vec![part("a", "0")]))
                .lose_response
        })
        .collect();
    assert_eq!(struck, [false, false, true, true, false, false]);
    assert_eq!(faults.count(id), 2);
}

#[test]
fn the_same_seed_strikes_the_same_requests_and_about_as_often_as_asked() {
    let run = |seed| -> Vec<bool> {
        let faults = Faults::new(seed);
        faults.add(Fault::throttle().probability(0.3));
        (0..1000)
            .map(|_| {
                faults
                    .plan(&put_records(vec![part("a", "0")]))
                    .stop
                    .is_some()
            })
            .collect()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let struck = run(7).iter().filter(|struck| **struck).count();
    assert!((200..400).contains(&struck), "{struck} of 1000");
}

#[test]
fn entries_are_refused_one_by_one_and_delays_add_up() {
    let faults = Faults::new(0);
    faults.add(Fault::refuse_entry("InternalFailure").shard("s1").times(1));
    faults.add(Fault::delay(Duration::from_millis(2)));
    faults.add(Fault::delay(Duration::from_millis(3)));
    let parts = vec![part("a", "s0"), part("a", "s1"), part("a", "s1")];
    let plan = faults.plan(&put_records(parts));
    assert_eq!(plan.refused.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(plan.delay, Duration::from_millis(5));
    assert_eq!(faults.injected()[0].entry, Some(1));
    let single = Call {
        batch: false,
        ..put_records(vec![part("a", "s1")])
    };
    assert!(faults.plan(&single).refused.is_empty());
}

#[test]
fn a_removed_fault_no_longer_strikes_but_stays_counted() {
    let faults = Faults::new(0);
    let id = faults.add(Fault::cut_connection());
    assert_eq!(
        faults.plan(&put_records(vec![Part::default()])).stop,
        Some(Stop::Cut)
    );
    faults.remove(id);
    assert!(faults.is_empty());
    assert!(
        faults
            .plan(&put_records(vec![Part::default()]))
            .stop
            .is_none()
    );
    assert_eq!(faults.count(id), 1);
}
