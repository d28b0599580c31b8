//! Names and ARNs of streams, checked without a call.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A stream by its valid name or ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamName(Arc<str>);

/// Why a text names no stream, and what to give instead: a sentence without its subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStreamName {
    /// There is no text.
    #[error("is empty; give a stream's name or ARN")]
    Empty,
    /// Kinesis does not accept the text as a name.
    #[error(
        "is {text}; a stream's name has 1 to 128 characters of a-z, A-Z, 0-9, '_', '-' and '.'{}",
        if *.is_padded { ": remove the white space around it" } else { "" }
    )]
    Name {
        /// The text, escaped and cut.
        text: String,
        /// Whether the text is a name with white space around it.
        is_padded: bool,
    },
    /// An ARN whose parts are missing.
    #[error("is {arn}, a part of an ARN; {ARN_RULE}")]
    PartOfArn {
        /// The text, escaped and cut.
        arn: String,
    },
    /// The ARN of a resource of another service.
    #[error("is {arn}, an ARN of service {service}; {ARN_RULE}")]
    OtherService {
        /// The ARN, escaped and cut.
        arn: String,
        /// The service, escaped and cut.
        service: String,
    },
    /// The ARN of a registered consumer of a stream.
    #[error("is {arn}, the ARN of a registered consumer; give the ARN of its stream, {stream}")]
    Consumer {
        /// The ARN, escaped and cut.
        arn: String,
        /// The ARN of the consumer's stream, escaped and cut.
        stream: String,
    },
    /// An ARN of Kinesis that is not one of a stream.
    #[error("is {arn}, no ARN of a stream; {ARN_RULE}")]
    Arn {
        /// The ARN, escaped and cut.
        arn: String,
    },
    /// The ARN of a stream in another region than the client's. Kinesis has no calls across regions.
    #[error(
        "is in region {stream}, and the client in {client}; give the client the stream's region"
    )]
    OtherRegion {
        /// The region of the stream.
        stream: String,
        /// The region of the client.
        client: String,
    },
}

const ARN_RULE: &str = "the ARN of a stream is arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, with an account of 12 digits";

impl StreamName {
    /// Checks a name or an ARN. `region`: that of the client, if it has one.
    ///
    /// # Errors
    /// [`InvalidStreamName`], which says what to give instead.
    pub fn parse(text: &str, region: Option<&str>) -> Result<Self, InvalidStreamName> {
        if text.starts_with("arn:") {
            let own = region_of(text)?;
            if let Some(region) = region.filter(|region| *region != own) {
                return Err(InvalidStreamName::OtherRegion {
                    stream: own.to_owned(),
                    client: region.to_owned(),
                });
            }
        } else if text.is_empty() {
            return Err(InvalidStreamName::Empty);
        } else if !is_name(text) {
            let is_padded = text.trim() != text && is_name(text.trim());
            return Err(InvalidStreamName::Name { text: shown(text), is_padded });
        }
        Ok(Self(text.into()))
    }

    /// The name or ARN, as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ARN, if one was given: the parameter `StreamARN` of a request.
    pub fn arn(&self) -> Option<String> {
        self.0.starts_with("arn:").then(|| self.0.to_string())
    }

    /// The name, if no ARN was given: the parameter `StreamName` of a request.
    pub fn name(&self) -> Option<String> {
        (!self.0.starts_with("arn:")).then(|| self.0.to_string())
    }
}

/// Checks a name, or an ARN of any region.
impl FromStr for StreamName {
    type Err = InvalidStreamName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, None)
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether Kinesis accepts `name` as the name of a stream.
fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// Returns the region in the ARN of a stream: `arn:PARTITION:kinesis:REGION:ACCOUNT:stream/NAME`. Emulators
/// use the same shape, mostly with the account 000000000000.
fn region_of(text: &str) -> Result<&str, InvalidStreamName> {
    let arn = shown(text);
    let parts: Vec<_> = text.splitn(6, ':').collect();
    let &[_, partition, service, region, account, resource] = &*parts else {
        return Err(InvalidStreamName::PartOfArn { arn });
    };
    if service != "kinesis" {
        return Err(InvalidStreamName::OtherService { arn, service: shown(service) });
    }
    if let Some((stream, _)) = resource.split_once("/consumer/") {
        let stream = format!("arn:{partition}:kinesis:{region}:{account}:{stream}");
        return Err(InvalidStreamName::Consumer { arn, stream: shown(&stream) });
    }
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_arn = (partition == "aws" || partition.starts_with("aws-"))
        && partition.bytes().all(lower)
        && !region.is_empty()
        && region.bytes().all(lower)
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && resource.strip_prefix("stream/").is_some_and(is_name);
    if is_arn { Ok(region) } else { Err(InvalidStreamName::Arn { arn }) }
}

/// Any text, for an error: escaped, and cut.
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
            let stream = StreamName::parse(name, Some("eu-west-1")).unwrap();
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
            let stream = StreamName::parse(&arn, Some(region)).unwrap();
            assert_eq!(
                arn.parse(),
                Ok(stream.clone()),
                "the SDK refuses a client without a region"
            );
            assert_eq!(
                StreamName::parse(&arn, Some("ap-south-1")),
                Err(InvalidStreamName::OtherRegion {
                    stream: region.to_owned(),
                    client: "ap-south-1".to_owned()
                })
            );
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
            let problem = text.parse::<StreamName>().unwrap_err().to_string();
            assert!(problem.starts_with("is "), "{problem}");
            assert!(problem.contains(said), "{text:?}: {problem}");
            assert!(!problem.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn an_error_shows_the_start_of_a_long_text() {
        let problem = "ü".repeat(10_000).parse::<StreamName>().unwrap_err().to_string();
        assert!(problem.len() < 600 && problem.contains("..."), "{problem}");
    }
}
