//! Progress: what is written, and what is refused.

use super::*;

#[tokio::test]
async fn a_checkpoint_after_a_take_over_is_refused_and_overwrites_nothing() {
    let (fixture, tenure, _writer) = held().await;
    tenure.checkpoint(at("5")).await.unwrap();
    let taken = fixture.taken_by("other").await;
    is_lost(tenure.checkpoint(at("6")).await);
    assert!(!tenure.is_held() && tenure.lost().is_cancelled());
    assert_eq!(fixture.item().await, taken);
}

#[tokio::test]
async fn a_checkpointer_of_an_earlier_tenure_is_refused() {
    let (fixture, early, writer) = held().await;
    let clone = early.clone();
    early.end(TenureEnd::Lost).await;
    writer.await.unwrap();
    let (late, _writer) = fixture.begin().await;
    is_lost(clone.checkpoint(at("5")).await);
    is_lost(clone.prepare_checkpoint(at("5"), None).await);
    late.checkpoint(at("7")).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, at("7"));
    assert!(late.fencing_token() > early.fencing_token());
}

#[tokio::test]
async fn a_checkpoint_never_goes_back() {
    let (fixture, tenure, _writer) = held().await;
    tenure.checkpoint(at("9")).await.unwrap();
    let error = tenure.checkpoint(at("8")).await.unwrap_err();
    assert!(
        matches!(error, CheckpointError::OutOfRange { .. }),
        "{error:?}"
    );
    tenure.checkpoint(Checkpoint::ShardEnd).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::ShardEnd);
}

#[tokio::test]
async fn two_phases_keep_the_state_until_the_checkpoint() {
    let (fixture, tenure, _writer) = held().await;
    let state = Some(Bytes::from_static(b"offsets"));
    tenure
        .prepare_checkpoint(at("5"), state.clone())
        .await
        .unwrap();
    let item = fixture.item().await;
    assert_eq!(
        item.pending,
        Some(PendingCheckpoint {
            checkpoint: at("5"),
            state
        })
    );
    assert_eq!(item.checkpoint, Checkpoint::TrimHorizon);
    tenure.checkpoint(at("5")).await.unwrap();
    assert_eq!(fixture.item().await.pending, None);
}

#[tokio::test]
async fn parents_have_ended_when_their_leases_are_gone_or_at_the_end() {
    let fixture = Fixture::new(None, OnStop::Keep).await;
    let mut child = Lease::new("child", Checkpoint::TrimHorizon);
    child.parents = [KEY.to_owned(), "gone".to_owned()].into();
    fixture.store.create(&child).await.unwrap();
    let child = fixture
        .store
        .take(&child, "me")
        .await
        .unwrap()
        .applied()
        .unwrap();
    let (tenure, _writer) = Tenure::begin(fixture.context.clone(), child, fixture.clock.now());
    assert!(!tenure.parents_ended().await.unwrap());
    let (parent, writer) = fixture.begin().await;
    parent.checkpoint(Checkpoint::ShardEnd).await.unwrap();
    parent.end(TenureEnd::ShardEnded).await;
    writer.await.unwrap();
    assert!(tenure.parents_ended().await.unwrap());
    let ended = fixture.item().await;
    assert!(matches!(
        fixture.store.delete(&ended).await.unwrap(),
        Outcome::Applied(_)
    ));
    assert!(tenure.parents_ended().await.unwrap());
}
