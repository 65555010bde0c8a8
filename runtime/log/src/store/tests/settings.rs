//! Where the keys to a bucket come from.

use super::super::s3::{Keys, builder, keys};
use super::*;
use object_store::aws::AmazonS3ConfigKey;

const FILE: &str = "\
[default]
aws_access_key_id = of default
aws_secret_access_key = a/secret+with=signs # and a hash
[other]
aws_access_key_id=of other
aws_secret_access_key=b
aws_session_token=token
[empty]
";

fn settings() -> S3Settings {
    S3Settings {
        bucket: "bucket".into(),
        ..S3Settings::default()
    }
}

fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn id_of(keys: &Option<Keys>) -> &str {
    keys.as_ref().map_or("", |keys| &keys.access_key_id)
}

#[test]
fn keys_come_from_the_settings_then_a_named_file_then_the_environment_then_the_shared_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    std::fs::write(&file, FILE).unwrap();
    let shared = ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap());
    let variables = [
        ("AWS_ACCESS_KEY_ID", "of environment"),
        ("AWS_SECRET_ACCESS_KEY", "c"),
        shared,
    ];

    let only_file = environment(&[shared]);
    assert_eq!(id_of(&keys(&settings(), &only_file).unwrap()), "of default");
    let by_profile = environment(&[shared, ("AWS_PROFILE", "other")]);
    assert_eq!(id_of(&keys(&settings(), &by_profile).unwrap()), "of other");

    // Those of the environment are taken from there by the client.
    let both = environment(&variables);
    assert_eq!(keys(&settings(), &both).unwrap(), None);
    let client = builder(&settings(), &both).unwrap();
    let taken = client.get_config_value(&AmazonS3ConfigKey::AccessKeyId);
    assert_eq!(taken.as_deref(), Some("of environment"));

    let named = S3Settings {
        credentials_file: Some(file.clone()),
        profile: Some("other".into()),
        ..settings()
    };
    let found = keys(&named, &both).unwrap().unwrap();
    assert_eq!(
        (found.access_key_id.as_str(), found.session_token.as_deref()),
        ("of other", Some("token"))
    );

    let given = S3Settings {
        access_key_id: Some("given".into()),
        secret_access_key: Some("d".into()),
        ..named
    };
    let client = builder(&given, &environment(&[("AWS_SESSION_TOKEN", "of other keys")])).unwrap();
    let value = |key| client.get_config_value(&key);
    assert_eq!(value(AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("given"));
    assert_eq!(value(AmazonS3ConfigKey::Token), None, "a token goes with its own keys");
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    std::fs::write(&file, FILE).unwrap();
    let with = |change: &dyn Fn(&mut S3Settings)| {
        let mut settings = settings();
        change(&mut settings);
        builder(&settings, &[]).map(|_| ()).unwrap_err().to_string()
    };
    for (wrong, says) in [
        (with(&|s| s.bucket.clear()), "bucket"),
        (with(&|s| s.access_key_id = Some("a".into())), "secret_access_key"),
        (with(&|s| s.secret_access_key = Some("a".into())), "access_key_id"),
        (with(&|s| s.endpoint = Some("localhost:9000".into())), "http://"),
        (with(&|s| s.credentials_file = Some(dir.path().join("none"))), "none"),
        (with(&|s| s.profile = Some("any".into())), "profile"),
        (
            with(&|s| {
                s.credentials_file = Some(file.clone());
                s.profile = Some("empty".into());
            }),
            "aws_access_key_id",
        ),
        (
            with(&|s| {
                s.credentials_file = Some(file.clone());
                s.profile = Some("missing".into());
            }),
            "[missing]",
        ),
    ] {
        assert!(wrong.contains(says), "{wrong}");
    }
}

#[test]
fn the_environment_cannot_switch_off_what_the_log_relies_on() {
    let variables = environment(&[
        ("AWS_CONDITIONAL_PUT", "disabled"),
        ("AWS_BUCKET", "another"),
        ("AWS_ENDPOINT_URL", "http://store.example:9000/"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
    ]);
    let client = builder(&settings(), &variables).unwrap();
    let value = |key| client.get_config_value(&key);
    assert_eq!(value(AmazonS3ConfigKey::ConditionalPut).as_deref(), Some("etag"));
    assert_eq!(value(AmazonS3ConfigKey::Bucket).as_deref(), Some("bucket"));
    assert_eq!(
        value(AmazonS3ConfigKey::Endpoint).as_deref(),
        Some("http://bucket.store.example:9000")
    );
}

#[test]
fn keys_are_not_printed() {
    let settings = S3Settings {
        access_key_id: Some("hidden id".into()),
        secret_access_key: Some("hidden key".into()),
        session_token: Some("hidden token".into()),
        ..settings()
    };
    assert!(!format!("{settings:?}").contains("hidden"));
}
