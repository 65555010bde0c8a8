//! Components: out of a file, or a deployed version out of an agent.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;

use crate::cli::{Server, pipeline::ModuleRef};

/// Largest component that an agent takes.
const COMPONENT_BYTES_MAX: u64 = 64 << 20;

/// A component: a file that ends in `.wasm`, or a module's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentRef {
    /// A file.
    File(PathBuf),
    /// A version that was deployed; the current one where none is named.
    Deployed(ModuleRef),
}

impl FromStr for ComponentRef {
    type Err = String;

    fn from_str(text: &str) -> Result<ComponentRef, String> {
        match text.ends_with(".wasm") {
            true => Ok(ComponentRef::File(text.into())),
            false => text.parse().map(ComponentRef::Deployed),
        }
    }
}

impl fmt::Display for ComponentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComponentRef::File(file) => write!(f, "{}", file.display()),
            ComponentRef::Deployed(ModuleRef { name, version: None }) => write!(f, "{name}@latest"),
            ComponentRef::Deployed(ModuleRef {
                name,
                version: Some(version),
            }) => write!(f, "{name}@{version}"),
        }
    }
}

impl ComponentRef {
    /// Its bytes.
    pub async fn load(&self, server: &Server) -> anyhow::Result<Bytes> {
        match self {
            ComponentRef::File(file) => read(file).await.map(Bytes::from),
            ComponentRef::Deployed(module) => {
                let admin = server.admin().await?;
                let (_, component) = admin.download_module(&module.name, module.version).await?;
                Ok(component)
            }
        }
    }
}

/// The bytes of a file, within what an agent takes.
pub async fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let name = || file.display().to_string();
    let bytes = tokio::fs::metadata(file).await.with_context(name)?.len();
    if bytes > COMPONENT_BYTES_MAX {
        bail!(
            "{}: {bytes} bytes are above the limit of {COMPONENT_BYTES_MAX} bytes for a module",
            file.display()
        );
    }
    tokio::fs::read(file).await.with_context(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_ends_in_wasm_and_a_version_is_named() {
        assert_eq!("a/b@1.wasm".parse(), Ok(ComponentRef::File("a/b@1.wasm".into())));
        for (text, shown) in [
            ("mask@3", "mask@3"),
            ("mask", "mask@latest"),
            ("mask@latest", "mask@latest"),
        ] {
            assert_eq!(text.parse::<ComponentRef>().unwrap().to_string(), shown);
        }
        assert!("mask@0".parse::<ComponentRef>().is_err());
    }
}
