//! Names of objects, in a store in memory.

use std::sync::Arc;

use futures::TryStreamExt as _;
use kcl::{DeadLetterSink as _, DeadLetterSource as _, ObjectStoreSink, ObjectStoreSource};
use object_store::ObjectStore as _;
use object_store::memory::InMemory;

use crate::letter;

#[tokio::test]
async fn any_letter_can_be_written_read_and_removed() {
    let store = Arc::new(InMemory::new());
    let mut odd = letter(1, "k");
    odd.application = "../a/b %41 ~ä".into();
    odd.shard_id = "..".into();
    let mut undated = letter(2, "k");
    undated.arrival = None;
    let letters = [odd, undated, letter(3, "k")];
    let sink = ObjectStoreSink::new(Arc::<InMemory>::clone(&store), "dead letters");
    sink.write(&letters).await.unwrap();

    let mut source = ObjectStoreSource::new(Arc::<InMemory>::clone(&store), "dead letters");
    let read = source.read().await.unwrap();
    assert_eq!(read.len(), 3);
    for stored in &read {
        assert!(letters.contains(stored.letter.as_ref().unwrap()));
    }
    let ids: Vec<_> = read.into_iter().map(|stored| stored.id).collect();
    source.remove(&ids).await.unwrap();
    // Letters that are gone already are no error.
    source.remove(&ids).await.unwrap();
    assert!(source.read().await.unwrap().is_empty());
    let left: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert!(left.is_empty());
}
