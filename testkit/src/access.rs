//! Who may do what: the check of signatures, and the list of denied operations.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use hyper::http::request::Parts;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::faults::Service;
use crate::kinesis::{ApiError, REGION};

/// An access key and its secret. The secret is not shown.
#[derive(Clone)]
pub(crate) struct AccessKey {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, secret: _ } = self;
        f.debug_struct("AccessKey").field("id", id).finish_non_exhaustive()
    }
}

/// What a request must pass before anything else looks at it. By default everything passes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// The only key there is. None: no signature is looked at.
    pub(crate) key: Option<AccessKey>,
    pub(crate) denied: HashSet<(Service, String)>,
    /// Whether requests must be signed for the region of the services.
    pub(crate) check_region: bool,
    /// Whether requests must be signed at the time of the services.
    pub(crate) check_time: bool,
}

/// How far the time of a signature may be from that of the services.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

impl Access {
    pub(crate) fn check(
        &self,
        head: &Parts,
        body: &[u8],
        service: Service,
        operation: &str,
        now: SystemTime,
    ) -> Result<(), ApiError> {
        if self.check_time {
            check_time(head, now)?;
        }
        if let Some(key) = &self.key {
            check_signature(key, head, body)?;
        }
        if self.check_region && signed_region(head).is_some_and(|region| region != REGION) {
            return Err(ApiError::new(
                "InvalidSignatureException",
                format!("Credential should be scoped to a valid region: this is {REGION}."),
            ));
        }
        if self.denied.contains(&(service, operation.to_owned())) {
            let prefix = match service {
                Service::Kinesis => "kinesis",
                Service::DynamoDb => "dynamodb",
            };
            return Err(ApiError::new(
                "AccessDeniedException",
                format!(
                    "User: arn:aws:iam::000000000000:user/testkit is not authorized to perform: \
                     {prefix}:{operation}"
                ),
            ));
        }
        Ok(())
    }
}

/// Refuses a signature of another time, in the words of AWS.
fn check_time(head: &Parts, now: SystemTime) -> Result<(), ApiError> {
    // A request without a time is not signed.
    let Some(text) = header(head, "x-amz-date") else {
        return Ok(());
    };
    let signed = signing_time(&text).ok_or_else(|| {
        ApiError::new(
            "IncompleteSignatureException",
            format!("Date must be in ISO-8601 'basic format'. Got '{text}'."),
        )
    })?;
    let (earliest, latest) = (now - MAX_CLOCK_SKEW, now + MAX_CLOCK_SKEW);
    let message = if signed < earliest {
        format!(
            "Signature expired: {text} is now earlier than {} ({} - 5 min.)",
            basic_format(earliest),
            basic_format(now)
        )
    } else if signed > latest {
        format!(
            "Signature not yet current: {text} is still later than {} ({} + 5 min.)",
            basic_format(latest),
            basic_format(now)
        )
    } else {
        return Ok(());
    };
    Err(ApiError::new("InvalidSignatureException", message))
}

/// Reads a time such as `20260131T123000Z`.
fn signing_time(text: &str) -> Option<SystemTime> {
    let part = |range: std::ops::Range<usize>| text.get(range);
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(9..11)?, part(11..13)?, part(13..15)?);
    let extended = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    let time = DateTime::from_str(&extended, Format::DateTime).ok()?;
    time.try_into().ok()
}

fn basic_format(time: SystemTime) -> String {
    let seconds = DateTime::from_secs(DateTime::from(time).secs());
    let extended = seconds.fmt(Format::DateTime).unwrap_or_default();
    extended.replace(['-', ':'], "")
}

/// The region that a request is signed for, if it says one.
fn signed_region(head: &Parts) -> Option<String> {
    let header = header(head, "authorization")?;
    let scope = Authorization::parse(&header)?.scope;
    scope.split('/').nth(1).map(str::to_owned)
}

/// The ARNs that a request may name a resource by.
#[derive(Deserialize)]
struct Arns<'a> {
    #[serde(rename = "StreamARN", borrow)]
    stream: Option<Cow<'a, str>>,
    #[serde(rename = "ConsumerARN", borrow)]
    consumer: Option<Cow<'a, str>>,
    #[serde(rename = "ResourceARN", borrow)]
    resource: Option<Cow<'a, str>>,
    #[serde(rename = "ResourceArn", borrow)]
    table: Option<Cow<'a, str>>,
    #[serde(rename = "TableName", borrow)]
    table_name: Option<Cow<'a, str>>,
}

/// Refuses a resource of another region than the request is signed for. One of another region than
/// the services are in does not exist, whatever the signature says.
pub(crate) fn check_arns(head: &Parts, json: &[u8]) -> Result<(), ApiError> {
    let Some(signed) = signed_region(head).filter(|region| region != REGION) else {
        return Ok(());
    };
    let Ok(arns) = serde_json::from_slice::<Arns<'_>>(json) else {
        // The operation says what is wrong with it.
        return Ok(());
    };
    let arns = [arns.stream, arns.consumer, arns.resource, arns.table, arns.table_name];
    for arn in arns.iter().flatten().filter(|name| name.starts_with("arn:")) {
        if arn.split(':').nth(3) != Some(signed.as_str()) {
            return Err(ApiError::not_found(format!(
                "{arn} is not in {signed}, the region that the request is signed for"
            )));
        }
    }
    Ok(())
}

/// The parts of an `Authorization` header of Signature Version 4.
struct Authorization<'a> {
    key_id: &'a str,
    /// Date, region and service, and `aws4_request`.
    scope: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let members = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let member = |name: &str| {
            members
                .split(',')
                .find_map(|member| member.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let (key_id, scope) = member("Credential")?.split_once('/')?;
        Some(Self {
            key_id,
            scope,
            signed_headers: member("SignedHeaders")?,
            signature: member("Signature")?,
        })
    }
}

fn check_signature(key: &AccessKey, head: &Parts, body: &[u8]) -> Result<(), ApiError> {
    let header = header(head, "authorization").ok_or_else(|| {
        ApiError::new("MissingAuthenticationTokenException", "Missing Authentication Token")
    })?;
    let incomplete = || {
        ApiError::new(
            "IncompleteSignatureException",
            "The Authorization header or X-Amz-Date is not as Signature Version 4 has it.",
        )
    };
    let authorization = Authorization::parse(&header).ok_or_else(incomplete)?;
    if authorization.key_id != key.id {
        return Err(ApiError::new(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ));
    }
    let expected = signature(key, &authorization, head, body).ok_or_else(incomplete)?;
    if expected == authorization.signature {
        return Ok(());
    }
    Err(ApiError::new(
        "InvalidSignatureException",
        "The request signature we calculated does not match the signature you provided. Check your \
         AWS Secret Access Key and signing method.",
    ))
}

/// The signature the request must have.
fn signature(
    key: &AccessKey,
    authorization: &Authorization<'_>,
    head: &Parts,
    body: &[u8],
) -> Option<String> {
    let mut scope = authorization.scope.split('/');
    let (date, region, service) = (scope.next()?, scope.next()?, scope.next()?);
    let (year, month, day) = (date.get(..4)?, date.get(4..6)?, date.get(6..)?);
    let midnight = format!("{year}-{month}-{day}T00:00:00Z");
    let midnight = DateTime::from_str(&midnight, Format::DateTime).ok()?;
    let signing_key = generate_signing_key(&key.secret, midnight.try_into().ok()?, region, service);
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{}\n{}\n{}",
        header(head, "x-amz-date")?,
        authorization.scope,
        sha256(canonical_request(authorization, head, body)?.as_bytes())
    );
    Some(calculate_signature(signing_key, to_sign.as_bytes()))
}

fn canonical_request(
    authorization: &Authorization<'_>,
    head: &Parts,
    body: &[u8],
) -> Option<String> {
    let mut canonical = format!("{}\n{}\n", head.method, head.uri.path());
    let mut query: Vec<&str> = head.uri.query().unwrap_or_default().split('&').collect();
    query.sort_unstable();
    canonical.push_str(&query.join("&"));
    canonical.push('\n');
    for name in authorization.signed_headers.split(';') {
        canonical.push_str(&format!("{name}:{}\n", header(head, name)?));
    }
    let announced = header(head, "x-amz-content-sha256");
    let payload = match announced.as_deref() {
        Some("UNSIGNED-PAYLOAD") => "UNSIGNED-PAYLOAD".to_owned(),
        _ => sha256(body),
    };
    canonical.push_str(&format!("\n{}\n{payload}", authorization.signed_headers));
    Some(canonical)
}

/// A header's values as they are signed: joined, spaces collapsed.
fn header(head: &Parts, name: &str) -> Option<String> {
    let values: Option<Vec<String>> = (head.headers.get_all(name).iter())
        .map(|value| Some(collapsed(value.to_str().ok()?)))
        .collect();
    let values = values?;
    if values.is_empty() {
        // HTTP/2 has no host header.
        let host = || head.uri.authority().map(ToString::to_string);
        return (name == "host").then(host).flatten();
    }
    Some(values.join(","))
}

fn collapsed(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
