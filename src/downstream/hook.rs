//! Where hooks of clients on this machine tell what their users asked for: a socket beside the store, one for each
//! gateway, that only this user reaches.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adapters::store::PROMPTS;
use crate::gateway::{Gateway, Told};

/// Most bytes of one message.
const MOST: u64 = 1 << 20;
/// How long one message may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hears hooks in `directory` until stopped.
///
/// # Errors
/// If the socket cannot be made.
pub fn listen(directory: &Path, gateway: Arc<Gateway>, tasks: &TaskTracker, stop: CancellationToken) -> io::Result<()> {
    let name = format!("{}{PROMPTS}", gateway.settings.instance);
    // Through the open directory: the path of a socket may have 107 bytes, and that of a store is longer now and then.
    let opened = std::fs::File::open(directory)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()))?;
    let path = directory.join(&name);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let one = tasks.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(one.spawn(hear(stream, gateway.clone()))),
                    Err(error) => {
                        tracing::warn!(%error, "a hook could not be heard");
                        tokio::time::sleep(PATIENCE).await;
                    }
                },
                () = stop.cancelled() => break,
            }
        }
        drop(std::fs::remove_file(path));
    });
    Ok(())
}

async fn hear(mut stream: UnixStream, gateway: Arc<Gateway>) {
    let told = async {
        let mut text = Vec::new();
        (&mut stream).take(MOST).read_to_end(&mut text).await?;
        let told = serde_json::from_slice::<Told>(&text).map_err(io::Error::other)?;
        gateway.hear(told);
        stream.write_all(b"heard\n").await
    };
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what a hook told was not understood"),
        Err(_) => tracing::warn!("a hook did not say what it had to tell"),
    }
}

/// Tells every gateway in `directory`; answers how many heard it.
///
/// # Errors
/// If the directory cannot be read. A gateway that does not hear is not one.
pub async fn tell(directory: &Path, told: &Told) -> io::Result<usize> {
    let text = serde_json::to_vec(told).map_err(io::Error::other)?;
    let opened = match std::fs::File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut heard = 0;
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(PROMPTS)) else { continue };
        let said = async {
            let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd())).await?;
            stream.write_all(&text).await?;
            stream.shutdown().await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, io::Error>(answer == "heard\n")
        };
        match tokio::time::timeout(PATIENCE, said).await {
            Ok(Ok(true)) => heard += 1,
            // Left behind by a gateway that was killed.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => drop(std::fs::remove_file(directory.join(name))),
            _ => {}
        }
    }
    Ok(heard)
}
