//! The stream, as a request names it: checked without a call.

/// A stream by its name or its ARN.
#[derive(Debug, Clone)]
pub(crate) struct StreamName(String);

impl StreamName {
    /// `name_or_arn`: a text without a [`problem`](Self::problem).
    pub(crate) fn new(name_or_arn: &str) -> Self {
        Self(name_or_arn.to_owned())
    }

    /// What is wrong with a text that should name a stream, and what to give instead: a sentence
    /// without its subject. `region`: that of the client, where it has one. Kinesis has no calls across regions.
    pub(crate) fn problem(text: &str, region: Option<&str>) -> Option<String> {
        if !text.starts_with("arn:") {
            return (!is_name(text)).then(|| not_a_name(text));
        }
        match (region_of(text), region) {
            (Err(problem), _) => Some(problem),
            (Ok(own), Some(region)) if own != region => Some(format!(
                "is in region {own}, and the client in {region}; \
                 give the client the stream's region"
            )),
            _ => None,
        }
    }

    /// As given.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn arn(&self) -> Option<String> {
        self.0.starts_with("arn:").then(|| self.0.clone())
    }

    pub(crate) fn name(&self) -> Option<String> {
        self.arn().is_none().then(|| self.0.clone())
    }
}

/// Whether Kinesis accepts `name` as the name of a stream.
fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// The region in the ARN of a stream: `arn:PARTITION:kinesis:REGION:ACCOUNT:stream/NAME`. Emulators
/// use the same shape, mostly with the account 000000000000.
fn region_of(arn: &str) -> Result<&str, String> {
    let shown = shown(arn);
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let &[_, partition, service, region, account, resource] = &*parts else {
        return Err(format!("is {shown}, a part of an ARN; {ARN_RULE}"));
    };
    if service != "kinesis" {
        return Err(format!("is {shown}, an ARN of service {service:?}; {ARN_RULE}"));
    }
    if let Some((stream, _)) = resource.split_once("/consumer/") {
        return Err(format!(
            "is {shown}, the ARN of a registered consumer; give the ARN of its stream, \
             \"arn:{partition}:kinesis:{region}:{account}:{stream}\""
        ));
    }
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_arn = (partition == "aws" || partition.starts_with("aws-"))
        && partition.bytes().all(lower)
        && !region.is_empty()
        && region.bytes().all(lower)
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && resource.strip_prefix("stream/").is_some_and(is_name);
    if !is_arn {
        return Err(format!("is {shown}, no ARN of a stream; {ARN_RULE}"));
    }
    Ok(region)
}

const ARN_RULE: &str = "the ARN of a stream is arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, with an account of 12 digits";

fn not_a_name(text: &str) -> String {
    if text.is_empty() {
        return "is empty; give a stream's name or ARN".to_owned();
    }
    let hint = if text.trim() != text && is_name(text.trim()) {
        ": remove the white space around it"
    } else {
        ""
    };
    format!(
        "is {}; a stream's name has 1 to 128 characters of a-z, A-Z, 0-9, '_', '-' and '.'{hint}",
        shown(text)
    )
}

/// A text that may be anything, for an error: escaped, and cut.
fn shown(text: &str) -> String {
    const MOST: usize = 200;
    let start: String = text.chars().take(MOST).collect();
    let cut = if start.len() < text.len() { "..." } else { "" };
    format!("{start:?}{cut}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_arns_of_streams() {
        for name in ["orders", "a", ".", "A_b-c.9", &"x".repeat(128)] {
            assert_eq!(StreamName::problem(name, Some("eu-west-1")), None);
            let stream = StreamName::new(name);
            assert_eq!((stream.name().as_deref(), stream.arn()), (Some(name), None));
        }
        for (partition, region) in [
            ("aws", "us-east-1"),
            ("aws-cn", "cn-north-1"),
            ("aws-us-gov", "us-gov-west-1"),
            ("aws-iso-b", "us-isob-east-1"),
            ("aws-eusc", "eusc-de-east-1"),
        ] {
            // The account of LocalStack.
            let arn = format!("arn:{partition}:kinesis:{region}:000000000000:stream/orders");
            assert_eq!(StreamName::problem(&arn, Some(region)), None);
            assert_eq!(StreamName::problem(&arn, None), None, "the SDK refuses that");
            let problem = StreamName::problem(&arn, Some("ap-south-1")).unwrap();
            assert!(problem.contains(region), "{problem}");
            assert!(problem.contains("ap-south-1"), "{problem}");
            let stream = StreamName::new(&arn);
            assert_eq!(stream.as_str(), arn);
            assert_eq!((stream.name(), stream.arn()), (None, Some(arn)));
        }
    }

    #[test]
    fn what_is_no_stream_is_refused_with_what_to_give() {
        let arn = |rest: &str| format!("arn:aws:kinesis:us-east-1:{rest}");
        let stream = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";
        for (text, said) in [
            ("".to_owned(), "is empty"),
            ("orders\n".to_owned(), "remove the white space"),
            (" orders".to_owned(), "remove the white space"),
            ("a/b".to_owned(), "1 to 128 characters"),
            ("größe".to_owned(), "1 to 128 characters"),
            ("x".repeat(129), "1 to 128 characters"),
            (format!("{stream}\n"), "no ARN of a stream"),
            (format!("{stream}/consumer/billing:1525898737"), stream),
            ("arn:aws:s3:::bucket".to_owned(), "an ARN of service \"s3\""),
            (
                "arn:aws:dynamodb:us-east-1:123456789012:table/orders".to_owned(),
                "an ARN of service \"dynamodb\"",
            ),
            ("arn:aws:kinesis".to_owned(), "a part of an ARN"),
            (arn("1:stream/orders"), "12 digits"),
            (arn("123456789012:stream/"), "no ARN of a stream"),
            (arn("123456789012:orders"), "no ARN of a stream"),
            ("arn:aws:kinesis::123456789012:stream/orders".to_owned(), "no ARN of a stream"),
            (
                "arn:azure:kinesis:us-east-1:123456789012:stream/orders".to_owned(),
                "no ARN of a stream",
            ),
        ] {
            let problem = StreamName::problem(&text, None).unwrap();
            assert!(problem.starts_with("is "), "{problem}");
            assert!(problem.contains(said), "{text:?}: {problem}");
            assert!(!problem.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn an_error_shows_the_start_of_a_long_text() {
        let problem = StreamName::problem(&"ü".repeat(10_000), None).unwrap();
        assert!(problem.len() < 600 && problem.contains("..."), "{problem}");
    }
}
