//! The controller's decisions as text: a command, then the records it became or the refusal it met.

use corrente_protocol::ids::{NodeId, TopicId};
use corrente_replication::controller::{BrokerRegistration, Command, Context, Limits, plan};
use corrente_replication::metadata::{Image, MetadataRecord};

use crate::text;

#[test]
fn the_table_of_decisions() {
    let mut image = Image::new();
    let mut nodes = vec![NodeId(1)];
    let limits = Limits { partitions_max: 12, topic_partitions_max: 8, ..Limits::default() };
    let mut drawn = 0;
    text::check("controller.txt", include_str!("../../testdata/controller.txt"), |line| {
        let words = text::arguments(line);
        if line.starts_with("nodes") {
            nodes = words.iter().map(|word| NodeId(text::number(word))).collect();
            return format!("{} nodes live", nodes.len());
        }
        drawn += 1;
        let context = Context { nodes: &nodes, topic_id: TopicId([drawn; 16]), limits };
        match plan(&image, &command(line, &words), &context) {
            Ok(records) if records.is_empty() => "holds already".to_owned(),
            Ok(records) => {
                let delta = image.apply_batch(&records).expect("a plan applies to the image it was made for");
                image.invariants();
                assert!(!delta.is_empty(), "records changed nothing");
                records.iter().map(|record| show(record) + "\n").collect()
            }
            Err(refusal) => format!("refused, {:?}: {refusal}", refusal.code),
        }
    });
}

fn command(line: &str, words: &[&str]) -> Command {
    let name = words.first().map_or("", |name| name.trim_matches('"')).to_owned();
    let configs = || {
        let pairs = words.iter().filter_map(|word| word.strip_prefix("config:")?.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let argument = |key| text::named(line, key);
    match line.split_whitespace().next() {
        Some("create") => Command::CreateTopic {
            partitions: argument("partitions").map_or(1, text::number),
            replication_factor: argument("rf").map_or(0, text::number),
            configs: configs(),
            name,
        },
        Some("delete") => Command::DeleteTopic { name, id: None },
        Some("alter") => Command::AlterTopic {
            name,
            set: configs(),
            unset: words.iter().filter_map(|word| Some(word.strip_prefix("unset:")?.to_owned())).collect(),
        },
        Some("add") => Command::AddPartitions { name, total: text::number(words[1]) },
        Some("register") => Command::RegisterBroker(BrokerRegistration {
            node: NodeId(text::number(words[0])),
            incarnation: [argument("incarnation").map_or(0, text::number); 16],
            host: argument("host").unwrap_or("rack-1").to_owned(),
            port: argument("port").map_or(7400, text::number),
            shards: argument("shards").map_or(2, text::number),
            data_dirs: vec![[7; 16]],
        }),
        Some("identify") => Command::IdentifyCluster { cluster: [text::number(words[0]); 16] },
        Some("grant-producer-ids") => Command::GrantProducerIds,
        other => panic!("unknown command {other:?}"),
    }
}

fn show(record: &MetadataRecord) -> String {
    let nodes = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match record {
        MetadataRecord::Topic(r) => format!("topic {} {} {:?}", short(r.id), r.name, r.configs),
        MetadataRecord::RemoveTopic(r) => format!("remove topic {}", short(r.id)),
        MetadataRecord::TopicConfig(r) => {
            format!("topic config {} set {:?} unset {:?}", short(r.id), r.set, r.unset)
        }
        MetadataRecord::Partition(r) => format!(
            "partition {}/{} leader {} epoch {}.{} replicas {} isr {}",
            short(r.topic),
            r.index,
            r.leader.map_or("none".to_owned(), |node| node.to_string()),
            r.leader_epoch,
            r.partition_epoch,
            nodes(&r.replicas),
            nodes(&r.isr),
        ),
        MetadataRecord::BrokerRegistration(r) => format!(
            "broker {} incarnation {} epoch {} at {}:{} with {} shards",
            r.node, r.incarnation[0], r.broker_epoch, r.host, r.port, r.shards
        ),
        MetadataRecord::ClusterIdentity(r) => format!("cluster {}", r.cluster[0]),
        MetadataRecord::ProducerIds(r) => format!("producer ids below {}", r.end),
    }
}

fn short(id: TopicId) -> String {
    format!("#{}", id.0[0])
}
