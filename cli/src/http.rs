//! One question to a broker's HTTP listener.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than a broker waits for its shards.
const PATIENCE: Duration = Duration::from_secs(10);

/// Far above what any number of shards tells; a stranger at that address may not fill our memory.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What is shown of an answer that is none.
const SAID_CHARS_MAX: usize = 300;

/// What a broker says at `path`.
pub async fn get(control: &str, path: &str) -> Result<String> {
    let answer = timeout(PATIENCE, ask(control, path)).await;
    let answer = answer.with_context(|| format!("{control} did not answer within {PATIENCE:?}"))??;
    body(&answer).map(str::to_owned).with_context(|| format!("the answer of {control}"))
}

/// The whole answer. HTTP 1.0 has no chunks: what follows the head is the body, up to the end of the connection.
async fn ask(control: &str, path: &str) -> Result<Vec<u8>> {
    let hint = || format!("cannot connect to {control}; does the broker run, with --metrics {control}?");
    let mut stream = TcpStream::connect(control).await.with_context(hint)?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: {control}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.with_context(|| format!("asking {control}"))?;
    let mut answer = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).await;
    read.with_context(|| format!("reading from {control}"))?;
    ensure!(
        answer.len() as u64 <= ANSWER_BYTES_MAX,
        "{control} answers with more than {ANSWER_BYTES_MAX} bytes"
    );
    Ok(answer)
}

fn body(answer: &[u8]) -> Result<&str> {
    let answer = std::str::from_utf8(answer).context("is no text")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("is no HTTP")?;
    let line = head.lines().next().unwrap_or_default();
    let status =
        line.strip_prefix("HTTP/1.").and_then(|line| line.split(' ').nth(1)).context("is no HTTP")?;
    if status != "200" {
        let said: String = body.trim().chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect();
        bail!("is {status}: {said}");
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_none_says_why() {
        let said = |answer: &[u8]| body(answer).unwrap_err().to_string();
        assert_eq!(said(b"HTTP/1.1 503 Service Unavailable\r\n\r\nstarting\n"), "is 503: starting");
        assert_eq!(said(b"HTTP/1.0 200 OK\r\n"), "is no HTTP");
        assert_eq!(said(b"\0\0\r\n\r\n"), "is no HTTP");
        assert_eq!(said(b"\xff"), "is no text");
        assert_eq!(body(b"HTTP/1.0 200 OK\r\nx: y\r\n\r\na 1\n").unwrap(), "a 1\n");
    }
}
