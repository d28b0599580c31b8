//! What another DynamoDB written in Rust says: dynoxide, served for the conformance suite, and a run of
//! random requests on two endpoints whose answers must be the same.
//!
//! ```text
//! conformance-dynoxide serve                      # prints `ready dynamodb=URL`, serves until killed
//! conformance-dynoxide compare URL URL [REQUESTS [SEED]]
//! ```

mod answer;
mod endpoint;
mod requests;

use std::error::Error;
use std::process::ExitCode;

use self::answer::{Answer, normal};
use self::endpoint::Endpoint;
use self::requests::Requests;

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: conformance-dynoxide serve | compare URL URL [REQUESTS [SEED]]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["serve"] => serve().await,
        ["compare", one, two, rest @ ..] if rest.len() <= 2 => compare(one, two, rest).await,
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Failure> {
    let database = dynoxide::Database::memory()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("ready dynamodb=http://{}", listener.local_addr()?);
    dynoxide::server::serve_on(listener, database).await;
    Ok(())
}

async fn compare(one: &str, two: &str, rest: &[&str]) -> Result<(), Failure> {
    let number = |nth: usize, default: u64| match rest.get(nth) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("{text} is no number; {USAGE}")),
    };
    let (count, seed) = (number(0, 5_000)?, number(1, fastrand::u64(..))?);
    println!("{count} requests of seed {seed}");
    let mut endpoints = [Endpoint::new(one)?, Endpoint::new(two)?];
    let mut requests = Requests::new(seed);
    let (mut accepted, mut differing) = (0_u64, 0_u64);
    for nth in 0..count {
        let (operation, body) = requests.next();
        let mut answers = Vec::new();
        for endpoint in &mut endpoints {
            let (status, answer) = endpoint.call(operation, &body).await?;
            answers.push(normal(operation, status, answer));
        }
        accepted += u64::from(matches!(answers[0], Answer::Given(_)));
        if answers[0] != answers[1] {
            differing += 1;
            println!(
                "request {nth}: {operation} {body}\n  {one}: {}\n  {two}: {}",
                answers[0], answers[1]
            );
            if differing == 20 {
                return Err("20 requests were answered differently; no more are sent".into());
            }
        }
    }
    // Requests that are all refused would show nothing.
    if accepted * 2 < count {
        return Err(format!("only {accepted} of {count} requests were accepted").into());
    }
    if differing > 0 {
        return Err(format!("{differing} of {count} requests were answered differently").into());
    }
    println!("{count} requests answered alike, {accepted} of them accepted");
    Ok(())
}
