//! A real S3 server over HTTP, for the tests: moto, from PyPI.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use millstream_log::S3Settings;

use crate::{Setup, python_environment};

/// Pinned, so that the server is the same everywhere. Its create-only PUT was measured atomic.
const PACKAGES: [&str; 4] = [
    "moto[s3]==5.2.5",
    "flask==3.1.3",
    "flask-cors==6.0.5",
    "werkzeug==3.1.9",
];

/// A running S3 server on a port of its own, with nothing in it. It ends, with all that was put, when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    address: String,
}

impl S3Server {
    /// Starts one, and installs it where that was not done yet; else why it cannot run here.
    pub fn start() -> Result<S3Server, String> {
        let programs = python_environment("s3-server", &PACKAGES)?;
        let mut command = Command::new(programs.join("moto_server"));
        command
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1");
        let started = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = started.map_err(|error| format!("moto_server: {error}"))?;
        let log = BufReader::new(child.stderr.take().expect("its standard error is piped"));
        match address_in(log) {
            Some(address) => Ok(S3Server { child, address }),
            None => {
                end(&mut child);
                Err("moto_server: it ended before it told its address".into())
            }
        }
    }

    /// Where it listens, as HOST:PORT.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a bucket, and tells how to get at it.
    ///
    /// # Panics
    /// Where the server refuses.
    pub fn bucket(&self, name: &str) -> S3Settings {
        let mut connection = TcpStream::connect(&self.address).expect("the server listens");
        let request = format!(
            "PUT /{name} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        connection
            .write_all(request.as_bytes())
            .expect("the server takes requests");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("the server answers");
        assert!(
            answer.starts_with("HTTP/1.1 200"),
            "the bucket {name} was not made: {answer}"
        );
        S3Settings {
            bucket: name.to_owned(),
            endpoint: Some(self.endpoint()),
            region: Some("us-east-1".into()),
            access_key_id: Some("tests".into()),
            secret_access_key: Some("tests".into()),
            path_style: true,
            ..S3Settings::default()
        }
    }
}

/// The agent that keeps its segments in this bucket.
pub fn on_s3(setup: Setup, settings: &S3Settings) -> Setup {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    setup
        .env("MILLSTREAM_STORE", format!("s3://{}", settings.bucket))
        .env("MILLSTREAM_S3_ENDPOINT", text(&settings.endpoint))
        .env("MILLSTREAM_S3_REGION", text(&settings.region))
        .env("MILLSTREAM_S3_ACCESS_KEY_ID", text(&settings.access_key_id))
        .env("MILLSTREAM_S3_SECRET_ACCESS_KEY", text(&settings.secret_access_key))
        .env("MILLSTREAM_S3_PATH_STYLE", settings.path_style)
}

impl Drop for S3Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Reads the log up to the line with the address, and keeps on reading it: a full pipe would stop the server.
fn address_in(mut log: impl BufRead + Send + 'static) -> Option<String> {
    let mut line = String::new();
    let address = loop {
        line.clear();
        if log.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some((_, address)) = line.split_once("Running on http://") {
            break address.trim().to_owned();
        }
    };
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    Some(address)
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}
