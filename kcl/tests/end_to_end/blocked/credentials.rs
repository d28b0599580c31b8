//! Credentials that are fetched on the blocked runtime.

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_dynamodb::config::IdentityCache;

use super::*;

/// Hands out credentials that must be fetched again for each call. Once it is armed, a fetch on the
/// user's thread returns only when the sender of its channel is dropped.
#[derive(Debug)]
struct BlockingCredentials {
    armed: AtomicBool,
    entered: AtomicBool,
    gate: Mutex<mpsc::Receiver<()>>,
}

impl ProvideCredentials for BlockingCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        if self.armed.load(Ordering::SeqCst) && thread::current().name() == Some(USERS) {
            self.entered.store(true, Ordering::SeqCst);
            let _ = self.gate.lock().unwrap().recv();
        }
        let expired = Some(SystemTime::UNIX_EPOCH);
        let credentials = Credentials::new("id", "secret", None, expired, "blocking");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

/// Clients of one `SdkConfig` share its cache of credentials: a client that finds a fetch under way
/// waits for it.
#[tokio::test]
async fn a_fetch_of_credentials_that_blocks_the_users_runtime_stalls_no_renewal() {
    let aws = aws(1).await;
    let (unblock, gate) = mpsc::channel::<()>();
    let credentials = Arc::new(BlockingCredentials {
        armed: AtomicBool::new(false),
        entered: AtomicBool::new(false),
        gate: Mutex::new(gate),
    });
    let shared = Arc::clone(&credentials) as Arc<dyn ProvideCredentials>;
    let shared = SharedCredentialsProvider::new(shared);
    let sdk_config = aws.sdk_config().to_builder();
    let sdk_config = sdk_config.credentials_provider(shared);
    let sdk_config = sdk_config.identity_cache(IdentityCache::lazy().build());
    let (probe, runtime) = (Probe::new(), OneThread::new());
    let first = builder_on(&sdk_config.build(), &probe, config("w1"));
    let first = runtime.worker(first).await;
    until("its shard", || processing(&first) == 1).await;
    credentials.armed.store(true, Ordering::SeqCst);
    until("a fetch for GetRecords", || credentials.entered.load(Ordering::SeqCst)).await;

    let others = Probe::new();
    let second = worker(&aws, &others, config("w2")).await;
    renewals(&second).await;

    drop(unblock);
    put(&aws, &probe, 0..100).await;
    until("all records", || probe.is_settled()).await;
    assert_eq!(probe.calls(Call::LeaseLost), [""; 0]);
    first.shutdown(PATIENCE).await.unwrap();
    second.shutdown(PATIENCE).await.unwrap();
}
