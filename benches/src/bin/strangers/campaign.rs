//! Many attacks in waves, and what they came to: who saw which line, what was not as it should be, what it cost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use corrente_protocol::api::{
    CreateTopicRequest, ListOffsetsPartition, ListOffsetsRequest, MetadataRequest, OffsetSpec,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{PartitionIndex, ShardId, TopicId, TopicName};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::attacks::{Attack, Target};
use crate::broker_process::{forget_peak, memory};
use crate::peer::Peer;

/// Between two waves; slow attacks of several waves so overlap.
const PAUSE: Duration = Duration::from_secs(4);
/// No attack takes longer.
const ATTACK_PATIENCE: Duration = Duration::from_secs(300);
/// Until what the last attack held is given back.
const SETTLING: Duration = Duration::from_secs(2);
/// Faults of one kind that are printed; the others are counted.
const FAULTS_PRINTED: usize = 5;

/// What is to be done.
pub struct Campaign {
    pub broker: SocketAddr,
    pub pid: u32,
    pub connections: usize,
    pub wave: usize,
    pub topic: String,
    pub growth_mib_max: u64,
}

/// What the attacks of one kind came to.
#[derive(Default)]
struct Tally {
    /// Those that went as they should.
    good: usize,
    /// What peers saw, each line once but for its numbers.
    lines: BTreeMap<String, String>,
    faults: Vec<String>,
    longest: Duration,
}

/// Makes all attacks, prints what they came to, and fails if one was not taken as it should be.
pub async fn run(campaign: Campaign) -> Result<()> {
    let Campaign { broker, pid, growth_mib_max, .. } = campaign;
    let target = find_target(broker, &campaign.topic).await?;
    forget_peak(pid)?;
    let before = memory(pid)?.resident_mib;
    let began = Instant::now();
    let tallies = attack(&campaign, target).await?;
    let seconds = began.elapsed().as_secs_f64();
    sleep(SETTLING).await;
    let after = memory(pid)?;

    let faults = print(&tallies);
    let growth = after.resident_mib.saturating_sub(before);
    println!(
        "{} hostile connections in {seconds:.0} s, {faults} not taken as they should be",
        campaign.connections
    );
    println!(
        "the broker's resident memory: {before} MiB before, {} MiB after (+{growth} MiB), at most {} MiB meanwhile",
        after.resident_mib, after.peak_mib
    );
    let kept = records_of(target).await?;
    println!("records kept of all damaged batches: {kept}");
    ensure!(faults == 0, "{faults} attacks were not taken as they should be");
    ensure!(kept == 0, "{kept} records of damaged batches were kept");
    ensure!(growth <= growth_mib_max, "resident memory grew by {growth} MiB, more than {growth_mib_max} MiB");
    Ok(())
}

/// Looks the stocked topic up and creates the one that has to stay empty.
async fn find_target(broker: SocketAddr, stock: &str) -> Result<Target> {
    let mut peer = Peer::greet(broker, ShardId::ANY).await?;
    let metadata = peer.call(&MetadataRequest { topics: Some(vec![TopicName::new(stock)?]) }).await?;
    let stock = metadata.topics.first().context("no topic in the response")?;
    ensure!(stock.error == ErrorCode::None, "topic '{}': {:?}", stock.name, stock.error);
    Ok(Target { broker, prey: create_topic(&mut peer, "prey").await?, stock: stock.id })
}

async fn create_topic(peer: &mut Peer, name: &str) -> Result<TopicId> {
    let request = CreateTopicRequest {
        name: name.to_owned(),
        partitions: 1,
        replication_factor: 0,
        configs: Vec::new(),
        validate_only: false,
    };
    let created = peer.call(&request).await?;
    ensure!(created.error == ErrorCode::None, "topic '{name}': {}", created.message.unwrap_or_default());
    Ok(created.id)
}

/// The log end of the topic that has to stay empty.
async fn records_of(target: Target) -> Result<u64> {
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    let part =
        ListOffsetsPartition { topic: target.prey, partition: PartitionIndex(0), spec: OffsetSpec::Latest };
    let response = peer.call(&ListOffsetsRequest { partitions: vec![part] }).await?;
    Ok(response.partitions.first().context("no partition in the response")?.offset.0)
}

async fn attack(campaign: &Campaign, target: Target) -> Result<BTreeMap<Attack, Tally>> {
    let mut under_way = JoinSet::new();
    let mut tallies: BTreeMap<Attack, Tally> = BTreeMap::new();
    for number in 0..campaign.connections {
        if number > 0 && number.is_multiple_of(campaign.wave) {
            sleep(PAUSE).await;
            let resident = memory(campaign.pid)?.resident_mib;
            eprintln!("{number} connections begun, {} at work, broker at {resident} MiB", under_way.len());
        }
        let attack = Attack::ALL[number % Attack::ALL.len()];
        under_way.spawn(async move {
            let began = Instant::now();
            let made = timeout(ATTACK_PATIENCE, attack.make(target, number / Attack::ALL.len())).await;
            let made = made.unwrap_or_else(|_| Err(anyhow!("not over after {ATTACK_PATIENCE:?}")));
            (attack, made, began.elapsed())
        });
        while let Some(ended) = under_way.try_join_next() {
            record(&mut tallies, ended?);
        }
    }
    while let Some(ended) = under_way.join_next().await {
        record(&mut tallies, ended?);
    }
    Ok(tallies)
}

fn record(tallies: &mut BTreeMap<Attack, Tally>, ended: (Attack, Result<String>, Duration)) {
    let (attack, made, took) = ended;
    let tally = tallies.entry(attack).or_default();
    tally.longest = tally.longest.max(took);
    match made {
        Ok(lines) => {
            tally.good += 1;
            for line in lines.lines() {
                tally.lines.entry(without_numbers(line)).or_insert_with(|| line.to_owned());
            }
        }
        Err(fault) => tally.faults.push(format!("{fault:#}")),
    }
}

/// Lines that differ in numbers alone are one.
fn without_numbers(line: &str) -> String {
    line.chars().filter(|character| !character.is_ascii_hexdigit()).collect()
}

/// Prints all tallies; how many faults there were.
fn print(tallies: &BTreeMap<Attack, Tally>) -> usize {
    for (attack, tally) in tallies {
        let name = format!("{attack:?}");
        println!(
            "{name:<24} {:>4} as they should be, the longest {:.1} s",
            tally.good,
            tally.longest.as_secs_f64()
        );
        for line in tally.lines.values() {
            println!("    {line}");
        }
        for fault in tally.faults.iter().take(FAULTS_PRINTED) {
            println!("    FAULT: {fault}");
        }
        if tally.faults.len() > FAULTS_PRINTED {
            println!("    FAULT: and {} more", tally.faults.len() - FAULTS_PRINTED);
        }
    }
    tallies.values().map(|tally| tally.faults.len()).sum()
}
