use snap_backup::*;
use std::sync::Arc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let backend = Arc::new(backend::Local::new(a[2].clone().into()));
    let opening = || repo::Opening {
        secret: crypto::Secret::KeyFile(vec![7; 32]),
        cache: Some("/tmp/w/cache".into()),
        world: world::World::system(),
    };
    let t = std::time::Instant::now();
    match a[1].as_str() {
        "init" => drop(repo::Repository::create(backend, opening(), "").map_err(|e| panic!("{e}"))),
        "backup" => {
            let r = repo::Repository::open(backend, opening()).unwrap();
            let mut o = ops::backup::BackupOptions::new("h");
            o.delta = std::env::var("NODELTA").is_err();
            let rep = ops::backup::backup(
                &r,
                ops::backup::Input::Descriptor { name: "db.sql".into(), descriptor: std::fs::File::open(&a[3]).unwrap().into() },
                &o,
                &progress::Silent,
            )
            .unwrap();
            println!("{rep:#?}");
        }
        "tree" => {
            let r = repo::Repository::open(backend, opening()).unwrap();
            let mut o = ops::backup::BackupOptions::new("h");
            o.delta = std::env::var("NODELTA").is_err();
            let rep = ops::backup::backup(
                &r,
                ops::backup::Input::Tree { roots: vec![a[3].clone().into()], filter: Default::default(), one_file_system: false },
                &o,
                &progress::Silent,
            )
            .unwrap();
            println!("{rep:#?}");
        }
        "dump" => {
            let r = repo::Repository::open(backend, opening()).unwrap();
            let s = r.select(&a[3], &Default::default()).unwrap();
            let rep = ops::dump::dump(&r, &s, &mut std::io::stdout(), &progress::Silent).unwrap();
            eprintln!("{rep:?}");
        }
        _ => {}
    }
    eprintln!("{:?}", t.elapsed());
}
