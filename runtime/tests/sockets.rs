//! Connections: bytes arrive in order, halves work side by side, streams move between shards.

mod shards;

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use corrente_runtime::executor::spawn;
use corrente_runtime::mailbox::mailbox;
use corrente_runtime::socket::{DetachedStream, Listener, Stream};
use futures_util::FutureExt;
use shards::{on_one_shard, on_shards};

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn pair() -> (Stream, Stream) {
    let listener = Listener::bind(any_port()).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let connecting = spawn(async move { Stream::connect(address).await.expect("connected") });
    let (accepted, peer) = listener.accept().await.expect("accepted");
    let connected = connecting.await;
    assert_eq!(connected.local_addr().expect("an address"), peer);
    assert_eq!(connected.peer_addr().expect("an address"), address);
    (accepted, connected)
}

async fn read_exactly(stream: &mut Stream, len: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(len);
    while buffer.len() < len {
        let read = stream.read(&mut buffer).await.expect("a read");
        assert!(read > 0, "closed after {} of {len} bytes", buffer.len());
    }
    buffer
}

#[test]
fn bytes_arrive_in_order_and_then_the_end() {
    on_one_shard(|| async {
        let (accepted, mut connected) = pair().await;
        let (_read, mut write) = accepted.into_split();
        let chunks: Vec<Bytes> = (0..200_u8).map(|byte| Bytes::from(vec![byte; byte.into()])).collect();
        let expected = chunks.concat();
        write.write_all(&chunks).await.expect("written");
        write.shutdown().await.expect("shut down");
        assert_eq!(read_exactly(&mut connected, expected.len()).await, expected);
        let mut rest = BytesMut::with_capacity(1);
        assert_eq!(connected.read(&mut rest).await.expect("a read"), 0);
        assert_eq!(connected.read(&mut rest).await.expect("a read"), 0);
    });
}

#[test]
fn a_writer_waits_for_a_reader_while_its_other_half_reads() {
    const LEN: usize = 16 << 20;
    on_one_shard(|| async {
        let (accepted, connected) = pair().await;
        let (mut read, mut write) = accepted.into_split();
        let writing = spawn(async move {
            write.write_all(&[Bytes::from(vec![1; LEN])]).await.expect("written");
        });
        // The other half of the same stream answers while the writer is stuck.
        let (mut peer_read, mut peer_write) = connected.into_split();
        peer_write.write_all(&[Bytes::from_static(b"ping")]).await.expect("written");
        let mut ping = BytesMut::with_capacity(4);
        while ping.len() < 4 {
            assert!(read.read(&mut ping).await.expect("a read") > 0);
        }
        let mut seen = 0;
        let mut buffer = BytesMut::with_capacity(64 << 10);
        while seen < LEN {
            buffer.clear();
            seen += peer_read.read(&mut buffer).await.expect("a read");
        }
        writing.await;
    });
}

#[test]
fn a_dropped_read_loses_nothing() {
    on_one_shard(|| async {
        let (mut accepted, mut connected) = pair().await;
        let mut buffer = BytesMut::with_capacity(16);
        assert!(accepted.read(&mut buffer).now_or_never().is_none());
        connected.write_all(&[Bytes::from_static(b"hello")]).await.expect("written");
        assert_eq!(read_exactly(&mut accepted, 5).await, b"hello"[..]);
    });
}

#[test]
fn a_read_never_grows_the_buffer() {
    on_one_shard(|| async {
        let (mut accepted, mut connected) = pair().await;
        connected.write_all(&[Bytes::from(vec![1; 1000])]).await.expect("written");
        let mut buffer = BytesMut::with_capacity(10);
        let capacity = buffer.capacity();
        let read = accepted.read(&mut buffer).await.expect("a read");
        assert_eq!((read, buffer.len(), buffer.capacity()), (capacity, capacity, capacity));
    });
}

#[test]
fn a_dropped_stream_is_closed_while_a_read_of_it_was_pending() {
    on_one_shard(|| async {
        let (accepted, mut connected) = pair().await;
        let (mut read, write) = accepted.into_split();
        let reading = spawn(async move {
            let mut buffer = BytesMut::with_capacity(16);
            read.read(&mut buffer).await
        });
        corrente_runtime::executor::yield_now().await;
        drop(write);
        drop(reading);
        let mut buffer = BytesMut::with_capacity(1);
        assert_eq!(connected.read(&mut buffer).await.expect("a read"), 0);
    });
}

#[test]
fn a_port_in_use_is_refused_and_free_again_after_the_listener() {
    on_one_shard(|| async {
        let listener = Listener::bind(any_port()).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let refused = Listener::bind(address).await.err().expect("taken");
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
        drop(listener);
        Listener::bind(address).await.map(drop).expect("free again");
    });
}

#[test]
fn a_listener_of_a_shard_that_ended_is_closed() {
    let (sender, mut receiver) = mailbox(1);
    on_one_shard(move || {
        let sender = sender.clone();
        async move {
            let listener = Listener::bind(any_port()).await.expect("a free port");
            sender.try_send(listener.local_addr().expect("an address")).expect("room");
            // Still waiting when the shard ends.
            spawn(async move { listener.accept().await.map(drop) }).detach();
        }
    });
    let address = receiver.try_recv().expect("an address");
    on_one_shard(move || async move {
        Listener::bind(address).await.map(drop).expect("closed with its shard");
    });
}

#[test]
fn nobody_listens_there() {
    on_one_shard(|| async {
        let listener = Listener::bind(any_port()).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let refused = Stream::connect(address).await.err().expect("refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_stream_moves_to_another_shard_and_answers_there() {
    let (hand_over, taken_over) = mailbox::<DetachedStream>(1);
    let (announce, announced) = mailbox::<SocketAddr>(1);
    let ends = std::sync::Arc::new(std::sync::Mutex::new(Some((taken_over, announced))));
    on_shards(2, move |shard| {
        let (hand_over, announce, ends) = (hand_over.clone(), announce.clone(), ends.clone());
        async move {
            if shard == 0 {
                drop(ends);
                let listener = Listener::bind(any_port()).await.expect("a free port");
                announce.send(listener.local_addr().expect("an address")).await.expect("heard");
                let (mut stream, _) = listener.accept().await.expect("accepted");
                assert_eq!(read_exactly(&mut stream, 1).await, b"h"[..]);
                hand_over.send(stream.detach()).await.expect("taken over");
                return;
            }
            let (mut taken_over, mut announced) = ends.lock().expect("whole").take().expect("once");
            let address = announced.recv().await.expect("an address");
            let mut client = Stream::connect(address).await.expect("connected");
            client.write_all(&[Bytes::from_static(b"hello")]).await.expect("written");
            let mut server = taken_over.recv().await.expect("a stream").attach().expect("attached");
            assert_eq!(read_exactly(&mut server, 4).await, b"ello"[..]);
            server.write_all(&[Bytes::from_static(b"world")]).await.expect("written");
            assert_eq!(read_exactly(&mut client, 5).await, b"world"[..]);
        }
    });
}

/// The kernel may have news of a socket that it has not told yet when the socket is dropped: its poll ends all the
/// same, or the shard would wait for it for ever.
#[test]
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the peer is no shard")]
fn sockets_are_dropped_while_their_peers_write() {
    const CONNECTIONS: usize = 2000;
    let (tell, told) = std::sync::mpsc::channel::<SocketAddr>();
    let peer = std::thread::spawn(move || {
        let address = told.recv().expect("an address");
        for _ in 0..CONNECTIONS {
            let mut stream = std::net::TcpStream::connect(address).expect("connected");
            // Until the shard has dropped it.
            while std::io::Write::write_all(&mut stream, b"news").is_ok() {}
        }
    });
    on_one_shard(move || {
        let tell = tell.clone();
        async move {
            let listener = Listener::bind(any_port()).await.expect("a free port");
            tell.send(listener.local_addr().expect("an address")).expect("a peer");
            for _ in 0..CONNECTIONS {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                stream.read(&mut BytesMut::with_capacity(4)).await.expect("a read");
            }
        }
    });
    peer.join().expect("every connection was closed");
}
