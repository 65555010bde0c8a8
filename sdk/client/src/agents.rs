//! The other agents of an installation, as they are named in answers.

use std::sync::{Mutex, PoisonError};

use tonic::transport::Channel;

/// Other agents that a connection knows the way to; beyond it the one that was asked least lately is forgotten.
const AGENTS_MAX: usize = 64;
/// How often a request goes on to the agent that the last one named.
pub(crate) const HOPS_MAX: u32 = 5;

/// Connections by URL, the one that was used last at the end. All that is made from one connection shares them.
#[derive(Debug, Default)]
pub(crate) struct Agents(Mutex<Vec<(String, Channel)>>);

impl Agents {
    /// The connection to an agent, made where there is none.
    pub(crate) fn channel<E>(&self, url: &str, make: impl FnOnce() -> Result<Channel, E>) -> Result<Channel, E> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().position(|(of, _)| of == url);
        let (url, channel) = match found {
            Some(at) => known.remove(at),
            None => (url.to_owned(), make()?),
        };
        if known.len() == AGENTS_MAX {
            // Whoever uses it still has it.
            known.remove(0);
        }
        known.push((url, channel.clone()));
        Ok(channel)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::transport::Endpoint;

    use super::*;

    #[tokio::test]
    async fn no_more_agents_are_known_than_the_bound_says() {
        let agents = Agents::default();
        let mut made = 0;
        let mut ask = |url: &str| {
            let channel = agents.channel::<Infallible>(url, || {
                made += 1;
                Ok(Endpoint::from_static("http://127.0.0.1:1").connect_lazy())
            });
            channel.unwrap();
            made
        };
        for n in 0..AGENTS_MAX {
            ask(&n.to_string());
        }
        assert_eq!(ask("0"), AGENTS_MAX, "it is known");
        assert_eq!(ask("new"), AGENTS_MAX + 1);
        assert_eq!(ask("0"), AGENTS_MAX + 1, "it was asked lately");
        assert_eq!(ask("1"), AGENTS_MAX + 2, "it made room");
        assert_eq!(agents.0.lock().unwrap().len(), AGENTS_MAX);
    }
}
