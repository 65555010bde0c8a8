//! What the agent says of itself: processor time and memory, from its metrics.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long the agent may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Most that an answer may have.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The agent's process at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ServerUse {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
}

/// Asks the agent at HOST:PORT; `None` where nobody answers there.
pub async fn ask(address: &str) -> Option<ServerUse> {
    let text = timeout(ANSWER_TIMEOUT, scrape(address)).await.ok()?.ok()?;
    Some(ServerUse {
        cpu_seconds: value(&text, "millstream_cpu_seconds_total")?,
        resident_bytes: value(&text, "millstream_resident_bytes")? as u64,
    })
}

async fn scrape(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}

fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        let text = "HTTP/1.0 200 OK\r\n\r\n# TYPE a counter\na_total_more 3\na_total 4.5\n";
        assert_eq!(value(text, "a_total"), Some(4.5));
        assert_eq!(value(text, "a"), None);
    }
}
