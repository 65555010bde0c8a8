//! Components that no agent can use.

use bytes::{BufMut, Bytes, BytesMut};
use millstream_tests::{record, wat, wat::Parts};
use tonic::Code;

use crate::{Mill, assert_refused};

/// A module with a custom section behind it, so that it has about so many bytes.
fn padded(bytes: usize) -> Bytes {
    let module = wat::module(wat::KEEPS);
    let mut padded = BytesMut::from(&*module);
    let name = b"padding";
    let content = bytes - module.len();
    padded.put_u8(0);
    let mut left = content;
    while left >= 0x80 {
        padded.put_u8(left as u8 | 0x80);
        left >>= 7;
    }
    padded.put_u8(left as u8);
    padded.put_u8(name.len() as u8);
    padded.put_slice(name);
    padded.put_bytes(0, content - name.len() - 1);
    padded.freeze()
}

#[tokio::test]
async fn a_large_module_is_taken_or_refused_while_the_others_go_on() {
    let mut mill = Mill::start().await;
    mill.topic("t").await;
    let deploying = {
        let grpc = mill.grpc.clone();
        tokio::spawn(async move { grpc.deploy("large", padded(60 << 20)).await })
    };
    let mut rounds = 0;
    while !deploying.is_finished() || rounds < 3 {
        mill.assert_calm().await;
        rounds += 1;
    }
    assert_eq!(deploying.await.unwrap().unwrap().version, 1);
    mill.grpc
        .add_stage("t", millstream_proto::v1::PipelineSide::Produce, "large", &[])
        .await
        .unwrap();
    assert_eq!(
        mill.grpc.produce("t", 0, vec![record("v")]).await.unwrap().base_offset,
        1
    );

    let refused = mill.grpc.deploy("larger", padded((64 << 20) + 1)).await;
    assert_refused(refused, Code::InvalidArgument, &["67108864 allowed"]);
    mill.assert_calm().await;
}

#[tokio::test]
async fn what_a_module_imports_beyond_the_contract_is_refused_by_name() {
    let mut mill = Mill::start().await;
    let exits = wat::component_that_imports("millstream:module/host@1.0.0", "exit");
    for (component, import) in [
        (
            wat::component_with_import("wasi:cli/environment@0.2.0"),
            "`wasi:cli/environment@0.2.0`",
        ),
        (
            wat::component_with_import("wasi:sockets/tcp@0.2.0"),
            "`wasi:sockets/tcp@0.2.0`",
        ),
        (wat::component_with_import("env"), "`env`"),
        (exits, "`millstream:module/host@1.0.0#exit`"),
    ] {
        let words = ["module wants is refused", import, "the host does not offer"];
        assert_refused(
            mill.grpc.deploy("wants", component).await,
            Code::InvalidArgument,
            &words,
        );
    }
    mill.assert_calm().await;
}

#[tokio::test]
async fn a_module_of_a_newer_contract_is_refused_with_both_versions() {
    let mut mill = Mill::start().await;
    for contract in ["1.1.0", "2.0.0"] {
        let imports = wat::LOG.replace("1.0.0", contract);
        let newer = Parts {
            contract,
            imports: &imports,
            process: "(call $log (i32.const 2) (i32.const 3000) (i32.const 4)) (i32.const 1024)",
            ..Parts::default()
        };
        let words = ["module newer is refused", contract, "1.0.0"];
        assert_refused(
            mill.grpc.deploy("newer", newer.module()).await,
            Code::InvalidArgument,
            &words,
        );
    }
    mill.assert_calm().await;
}
