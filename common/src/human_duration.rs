//! Durations as text for serde: `"100ms"`, `"1m 30s"`.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes a duration as text.
pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*value))
}

/// Reads a duration from text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(D::Error::custom)
}

/// The same for a duration that may be absent.
pub mod optional {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer};

    /// Writes a duration as text, if there is one.
    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = value.map(|value| humantime::format_duration(value).to_string());
        text.serialize(serializer)
    }

    /// Reads a duration from text, if there is one.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let parsed = text.as_deref().map(humantime::parse_duration).transpose();
        parsed.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::{Deserialize, Serialize};
    use serde_json::json;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Settings {
        #[serde(with = "crate::human_duration")]
        timeout: Duration,
        #[serde(with = "crate::human_duration::optional")]
        limit: Option<Duration>,
    }

    #[test]
    fn durations_are_text() {
        let read = |data| serde_json::from_value::<Settings>(data);
        let settings = read(json!({"timeout": "1500ms", "limit": "1m 30s"})).unwrap();
        let (timeout, limit) = (Duration::from_millis(1500), Some(Duration::from_secs(90)));
        assert_eq!(settings, Settings { timeout, limit });
        let written = serde_json::to_value(&settings).unwrap();
        assert_eq!(written, json!({"timeout": "1s 500ms", "limit": "1m 30s"}));
        let without = read(json!({"timeout": "0s", "limit": null})).unwrap();
        assert_eq!(without.limit, None);
        assert!(read(json!({"timeout": "soon", "limit": null})).is_err());
        assert!(read(json!({"timeout": 7, "limit": null})).is_err());
    }
}
