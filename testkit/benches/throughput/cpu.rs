//! CPU time, by the names of threads: testkit's and the sink's are the server's, all others the
//! client's. Where the system does not tell (it is Linux that does), it is zero.

use std::fs;
use std::time::Duration;

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct CpuTime {
    pub(crate) client: Duration,
    pub(crate) server: Duration,
}

impl CpuTime {
    pub(crate) fn now() -> Self {
        let mut total = Self::default();
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
        for thread in threads.flatten() {
            let read =
                |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            let nanos = read("schedstat");
            let nanos = nanos.split(' ').next().and_then(|nanos| nanos.parse().ok());
            let side = match read("comm").trim_end() {
                "kinesis-testkit" | "sink" => &mut total.server,
                _ => &mut total.client,
            };
            *side += Duration::from_nanos(nanos.unwrap_or(0));
        }
        total
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            client: self.client.saturating_sub(earlier.client),
            server: self.server.saturating_sub(earlier.server),
        }
    }
}
