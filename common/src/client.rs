//! What all AWS clients of `kpl` and `kcl` are set up with.

use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;

/// The defaults of the AWS SDK that the clients take. They are named, because a release of the SDK changes
/// those of the latest version.
pub fn behavior_version() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}
