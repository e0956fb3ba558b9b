//! A task that works on and on, but yields if needed, leaves room for connections, and they for it.

mod shards;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use corrente_runtime::executor::{Queue, spawn, spawn_in, yield_if_needed};
use corrente_runtime::socket::{Listener, Stream};
use shards::on_one_shard;

#[test]
fn a_connection_is_served_beside_background_work() {
    on_one_shard(|| async {
        let worked = Rc::new(Cell::new(0_u64));
        let work = worked.clone();
        let hog = spawn_in(Queue::Background, async move {
            loop {
                work.set(work.get() + 1);
                yield_if_needed().await;
            }
        });
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let client = spawn(async move {
            let mut stream = Stream::connect(address).await.expect("connected");
            let mut buffer = BytesMut::with_capacity(64);
            for _ in 0..100 {
                stream.write_all(&[Bytes::from_static(b"x")]).await.expect("written");
                buffer.clear();
                assert!(stream.read(&mut buffer).await.expect("a read") > 0);
            }
        });
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let echo = spawn(async move {
            let mut buffer = BytesMut::with_capacity(64);
            loop {
                buffer.clear();
                if stream.read(&mut buffer).await.expect("a read") == 0 {
                    return;
                }
                stream.write_all(&[buffer.clone().freeze()]).await.expect("written");
            }
        });
        client.await;
        echo.await;
        let before = worked.get();
        while worked.get() == before {
            yield_if_needed().await;
        }
        drop(hog);
    });
}
