//! The procedures a copy needs, against a real server.

use remoor_nfs::v3::{self, CreateHow, FileType, NfsStat, Sattr};

use crate::host::{Host, client_of};

#[tokio::test]
async fn links_attributes_and_limits() {
    let host = Host::start("rw,insecure,no_root_squash");
    let client = client_of(&host, "noresvport");
    let root = client.mount("/data").await.unwrap();
    let file = client.create(&root, b"file").await.unwrap().handle;
    let link = client.symlink(&root, b"link", b"to/\xff").await.unwrap();
    assert_eq!(client.readlink(&link.handle).await.unwrap(), &b"to/\xff"[..]);
    assert_eq!(link.attr.unwrap().kind, FileType::Symlink);
    client.link(&file, &root, b"again").await.unwrap();
    client.setattr(&file, Sattr { mode: Some(0o600), size: Some(77), ..Sattr::default() }).await.unwrap();
    let attr = client.getattr(&file).await.unwrap();
    assert_eq!((attr.mode, attr.size, attr.nlink), (0o600, 77, 2));
    let wanted = v3::access::READ | v3::access::MODIFY;
    assert_eq!(client.access(&file, wanted).await.unwrap(), wanted);
    assert!(client.fsstat(&root).await.unwrap().total_bytes > 0);
    assert!(client.pathconf(&root).await.unwrap().name_max >= 255);
    let how = CreateHow::Unchecked(Sattr { size: Some(0), ..Sattr::default() });
    client.create_how(&root, b"file", how).await.unwrap();
    assert_eq!(client.getattr(&file).await.unwrap().size, 0);
    let error = client.create(&root, b"file").await.unwrap_err();
    assert_eq!(error.status(), Some(NfsStat::Exist));
}

#[tokio::test]
async fn a_directory_is_listed_reply_by_reply() {
    let host = Host::start("rw,insecure,no_root_squash");
    let client = client_of(&host, "noresvport");
    let root = client.mount("/data").await.unwrap();
    for n in 0..600 {
        client.create(&root, format!("a-name-that-fills-the-reply-sooner-{n:04}").as_bytes()).await.unwrap();
    }
    let (mut listing, mut names, mut replies) = (client.list(&root), Vec::new(), 0);
    while let Some(entries) = listing.next().await.unwrap() {
        replies += 1;
        assert!(entries.iter().all(|entry| entry.file.is_some() && entry.attr.is_some()));
        names.extend(entries.into_iter().map(|entry| entry.name.0));
    }
    names.sort();
    names.dedup();
    assert!(names.len() == 600 && replies > 1, "{} names in {replies} replies", names.len());
    assert!(listing.next().await.unwrap().is_none());
}
