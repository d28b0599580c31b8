//! The setting, and the environment.

use super::*;

#[test]
fn the_environment_turns_cbor_off_for_auto_only() {
    let is_on = |wire, name: &str, value: &str| {
        let variable = |asked: &str| (asked == name).then(|| value.to_owned());
        WireProtocol::in_environment(wire, variable).negotiation.is_some()
    };
    for (name, value, expected) in [
        ("AWS_CBOR_DISABLE", "true", false),
        ("AWS_CBOR_DISABLE", "1", false),
        ("AWS_CBOR_DISABLE", "", false),
        ("AWS_CBOR_DISABLE", "False", true),
        ("CBOR_ENABLED", "false", false),
        ("CBOR_ENABLED", "FALSE", false),
        ("CBOR_ENABLED", "true", true),
        ("OTHER", "true", true),
    ] {
        assert_eq!(is_on(Wire::Auto, name, value), expected, "{name}={value}");
        assert!(is_on(Wire::Cbor, name, value));
        assert!(!is_on(Wire::Json, name, value));
    }
}

#[cfg(feature = "serde")]
#[test]
fn the_setting_is_a_word() {
    for (wire, text) in [(Wire::Auto, "auto"), (Wire::Json, "json"), (Wire::Cbor, "cbor")] {
        let text = format!("\"{text}\"");
        assert_eq!(serde_json::to_string(&wire).unwrap(), text);
        assert_eq!(serde_json::from_str::<Wire>(&text).unwrap(), wire);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_come_back_as_they_were_put(
        records in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..2000), "\\PC{1,40}"), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (output, listed) = runtime.block_on(async {
            let aws = aws(CborSupport::Full).await;
            let client = client(&aws, Wire::Cbor);
            let entries = records.iter().map(|(data, key)| {
                let entry = PutRecordsRequestEntry::builder().data(Blob::new(data.clone()));
                entry.partition_key(key).build().unwrap()
            });
            let request = client.put_records().stream_name(STREAM);
            request.set_records(Some(entries.collect())).send().await.unwrap();
            (read(&client).await, stored(&aws))
        });
        let expected: Vec<_> = records.iter().map(|(data, _)| data.clone()).collect();
        prop_assert_eq!(&listed, &expected);
        for (record, (data, key)) in output.records().iter().zip(&records) {
            prop_assert_eq!(record.data().as_ref(), &data[..]);
            prop_assert_eq!(record.partition_key(), Some(key.as_str()));
        }
        prop_assert_eq!(output.records().len(), records.len());
    }
}
