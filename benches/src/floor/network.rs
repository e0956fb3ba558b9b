//! Loopback TCP between two blocking threads: a round trip, and a stream.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::{CLIENT_CPU, SERVER_CPU, pin_to, thread_cpu_time};
use crate::figures::{Figures, Samples};

/// The size of a small produce.
const PING_BYTES: usize = 256;
/// Not measured, at the start: caches, frequency and socket buffers settle.
const WARM_UP: Duration = Duration::from_millis(100);
const STREAM_CHUNK_BYTES: usize = 256 * 1024;

/// 256 bytes there, 256 bytes back, one at a time.
pub(super) fn ping_pong(seconds: Duration, figures: &mut Figures) -> Result<()> {
    let ((), samples) = between(
        |mut server| {
            let mut ping = [0; PING_BYTES];
            while server.read_exact(&mut ping).is_ok() {
                server.write_all(&ping)?;
            }
            Ok(())
        },
        |mut client| {
            let (mut samples, mut ping) = (Samples::default(), [7; PING_BYTES]);
            let began = Instant::now();
            loop {
                let sent = Instant::now();
                client.write_all(&ping)?;
                client.read_exact(&mut ping)?;
                if began.elapsed() > WARM_UP {
                    samples.push(sent.elapsed());
                }
                if began.elapsed() > WARM_UP + seconds {
                    client.shutdown(Shutdown::Both)?;
                    return Ok(samples);
                }
            }
        },
    )?;
    samples.add_to(figures, "tcp_ping_pong_256_b");
    Ok(())
}

/// One way, as fast as it goes: bytes per second, and the receiver's CPU time for them.
pub(super) fn stream(seconds: Duration, figures: &mut Figures) -> Result<()> {
    let ((bytes, elapsed, cpu_time), ()) = between(
        |mut server| {
            let mut chunk = vec![0; STREAM_CHUNK_BYTES];
            let (cpu_before, began) = (thread_cpu_time()?, Instant::now());
            let mut bytes = 0;
            loop {
                match server.read(&mut chunk)? {
                    0 => return Ok((bytes, began.elapsed(), thread_cpu_time()? - cpu_before)),
                    read => bytes += read,
                }
            }
        },
        |mut client| {
            let chunk = vec![7; STREAM_CHUNK_BYTES];
            let began = Instant::now();
            loop {
                client.write_all(&chunk)?;
                if began.elapsed() > seconds {
                    client.shutdown(Shutdown::Both)?;
                    return Ok(());
                }
            }
        },
    )?;
    let gigabytes = bytes as f64 / 1e9;
    figures.add("tcp_stream", "GB/s", gigabytes / elapsed.as_secs_f64());
    figures.add("tcp_stream_receive_cpu", "s/GB", cpu_time.as_secs_f64() / gigabytes);
    Ok(())
}

/// Runs the two ends of one connection on threads of their own, each on its CPU.
fn between<S: Send, C: Send>(
    server: impl FnOnce(TcpStream) -> Result<S> + Send,
    client: impl FnOnce(TcpStream) -> Result<C> + Send,
) -> Result<(S, C)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            pin_to(SERVER_CPU)?;
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            server(stream)
        });
        let client = scope.spawn(move || {
            pin_to(CLIENT_CPU)?;
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            client(stream)
        });
        let client = client.join().map_err(|_| anyhow!("the client thread panicked"))??;
        let server = server.join().map_err(|_| anyhow!("the server thread panicked"))??;
        Ok((server, client))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_measure_something() {
        let mut figures = Figures::default();
        ping_pong(Duration::from_millis(5), &mut figures).expect("a loopback");
        stream(Duration::from_millis(5), &mut figures).expect("a loopback");
        for name in ["tcp_ping_pong_256_b.p50", "tcp_ping_pong_256_b.p999", "tcp_stream"] {
            assert!(figures.median(name).is_some_and(|median| median > 0.0), "{name}: {figures:?}");
        }
    }
}
