//! What an operator does about a store that fails: its own words are long, and say it in passing.

use crate::config::StoreUrl;

/// Bound on the store's own words.
const WORDS_MAX: usize = 300;

/// Codes of the S3 protocol that mean the credentials or what they permit.
const REFUSALS: [&str; 6] = [
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "AllAccessDisabled",
];

/// What is wrong with the store, and what to do about it.
pub fn explain(url: &StoreUrl, wrong: &str) -> String {
    let code = wrong
        .split_once("<Code>")
        .and_then(|(_, rest)| Some(rest.split_once("</Code>")?.0));
    let what = match code {
        Some("NoSuchBucket") => "there is no such bucket: make it, or choose another with --store",
        Some("PermanentRedirect" | "AuthorizationHeaderMalformed") => {
            "the bucket is in another region: set s3_region to its own"
        }
        Some(code) if REFUSALS.contains(&code) => REFUSED,
        None if wrong.contains("403 Forbidden") || wrong.contains("401 Unauthorized") => REFUSED,
        None if wrong.contains("error sending request") => {
            "nobody answers there: check s3_endpoint, s3_path_style and the network"
        }
        _ => return format!("{url}: {}", shorten(wrong)),
    };
    match code {
        Some(code) => format!("{url}: {what} ({code})"),
        None => format!("{url}: {what} ({})", shorten(wrong)),
    }
}

const REFUSED: &str = "the credentials are refused: check s3_access_key_id and s3_secret_access_key, or what stands in \
                       their place, and that they may get, put, list and delete";

fn shorten(words: &str) -> String {
    match words.char_indices().nth(WORDS_MAX) {
        None => words.to_owned(),
        Some((end, _)) => format!("{} ...", &words[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stores_say_becomes_what_to_do() {
        let url: StoreUrl = "s3://logs/a".parse().unwrap();
        for (wrong, words) in [
            (
                "404 Not Found: <Error><Code>NoSuchBucket</Code></Error>",
                "there is no such bucket: make it",
            ),
            (
                "403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code></Error>",
                "refused: check s3_access_key_id",
            ),
            ("Server returned 403 Forbidden: ", "refused: check s3_access_key_id"),
            (
                "HTTP error: error sending request",
                "nobody answers there: check s3_endpoint",
            ),
            ("301: <Code>PermanentRedirect</Code>", "set s3_region"),
            ("2 of 8 writers were told", "2 of 8 writers were told"),
        ] {
            let told = explain(&url, wrong);
            assert!(told.starts_with("s3://logs/a: ") && told.contains(words), "{told}");
        }
        assert!(explain(&url, &"ü".repeat(5_000)).chars().count() < WORDS_MAX + 30);
    }
}
