//! The model broker behind a real socket on 127.0.0.1, which can be stopped and started again.

#![allow(dead_code, reason = "each test uses its part")]

pub mod model;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use corrente_protocol::api::ApiKey;
use corrente_protocol::frame::{Cut, cut_request};
use corrente_protocol::hello::{CLIENT_HELLO_LEN, ClientHello};
use model::Model;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

pub struct FakeBroker {
    pub model: Arc<Mutex<Model>>,
    pub address: String,
    appended: watch::Sender<u64>,
    serving: Option<JoinHandle<()>>,
}

impl FakeBroker {
    pub async fn start(shards: u16) -> FakeBroker {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let model = Arc::new(Mutex::new(Model::new("127.0.0.1", address.port(), shards)));
        let (appended, _) = watch::channel(0);
        let mut broker = FakeBroker { model, address: address.to_string(), appended, serving: None };
        broker.serve(listener);
        broker
    }

    fn serve(&mut self, listener: TcpListener) {
        let (model, appended) = (Arc::clone(&self.model), self.appended.clone());
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                connections.spawn(converse(stream, Arc::clone(&model), appended.clone()));
            }
        }));
    }

    /// Every socket closes; what was appended stays.
    pub async fn stop(&mut self) {
        let serving = self.serving.take().expect("it was started");
        serving.abort();
        let _ = serving.await;
    }

    /// Serves again at the same address.
    pub async fn restart(&mut self) {
        let listener = TcpListener::bind(&self.address).await.expect("the port is free again");
        self.serve(listener);
    }

    pub fn create(&self, topic: &str, partitions: u32) {
        self.model.lock().expect("no test panicked").create(topic, partitions);
    }
}

async fn converse(
    mut stream: TcpStream,
    model: Arc<Mutex<Model>>,
    appended: watch::Sender<u64>,
) -> Option<()> {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let mut hello = [0; CLIENT_HELLO_LEN];
    stream.read_exact(&mut hello).await.ok()?;
    let hello = ClientHello::decode(&hello).expect("a client hello");
    let answer = model.lock().expect("no test panicked").hello(hello.wanted_shard);
    stream.write_all(&answer.encode()).await.ok()?;
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    let news = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(send(
        connection,
        Arc::clone(&model),
        Arc::clone(&writer),
        Arc::clone(&news),
        appended.subscribe(),
    ));
    let mut inbound = BytesMut::new();
    loop {
        while let Cut::Frame(header, body) = cut_request(&mut inbound, 1 << 26).expect("good frames") {
            let response = {
                let mut model = model.lock().expect("no test panicked");
                let response = model.serve(connection, answer.shard, &header, body);
                appended.send_replace(model.appended);
                response
            };
            match response {
                Some(chunks) => writer.lock().await.write_all(&chunks.concat()).await.ok()?,
                None => news.notify_one(),
            }
            if header.api == ApiKey::AdjustSubscription {
                news.notify_one();
            }
        }
        if reader.read_buf(&mut inbound).await.ok()? == 0 {
            model.lock().expect("no test panicked").forget(connection);
            return None;
        }
    }
}

/// Sends what the subscriptions of a connection have to say, whenever anything may have changed.
async fn send(
    connection: u64,
    model: Arc<Mutex<Model>>,
    writer: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    news: Arc<Notify>,
    mut appended: watch::Receiver<u64>,
) {
    loop {
        loop {
            let sent = model.lock().expect("no test panicked").sent(connection);
            let Some(chunks) = sent else { break };
            if writer.lock().await.write_all(&chunks.concat()).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = news.notified() => {}
            changed = appended.changed() => if changed.is_err() { return },
        }
    }
}
