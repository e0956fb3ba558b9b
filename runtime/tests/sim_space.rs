//! The room of a simulated disk: what files are long is taken, what is removed or cut is free again.

use corrente_runtime::{
    file::{self, File, OpenOptions},
    sim::{World, WorldConfig},
};
use std::{future::Future, io, path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

fn run<Fut: Future<Output = io::Result<()>> + 'static>(story: impl FnOnce() -> Fut + 'static) {
    let world = World::new(1, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    world.run(&node, LIMIT, story).expect("the story ends").expect("no operation fails");
}

async fn available() -> io::Result<u64> {
    Ok(file::space(Path::new("/data")).await?.available_bytes)
}

#[test]
fn what_is_written_is_taken_and_what_is_removed_is_free_again() {
    run(|| async {
        file::create_dir_all(Path::new("/data")).await?;
        let empty = file::space(Path::new("/data")).await?;
        assert_eq!(empty.available_bytes, empty.total_bytes);
        let path = Path::new("/data/segment");
        let segment = File::open(path, OpenOptions::CREATE_NEW).await?;
        segment.allocate(0, 1 << 20).await?;
        assert_eq!(available().await?, empty.total_bytes - (1 << 20));
        segment.set_len(4096).await?;
        assert_eq!(available().await?, empty.total_bytes - 4096);
        file::remove_file(path).await?;
        assert_eq!(available().await?, empty.total_bytes);
        let missing = file::space(path).await.expect_err("nothing is there");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        Ok(())
    });
}
