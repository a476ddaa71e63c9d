//! The architecture's invariants, on this repository. The rules and what they refuse are in `xtask::architecture`.

use std::path::Path;

use cargo_metadata::{Metadata, MetadataCommand};
use xtask::architecture::{
    assert_none, direction, licence, names, promises, purity, read, root, rust_files, size, source,
};

/// Metadata of the workspace with this manifest, for Linux: other systems' crates are never built.
fn metadata(manifest: &str) -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join(manifest));
    command.other_options(["--filter-platform".to_string(), "x86_64-unknown-linux-gnu".to_string()]);
    command.exec().expect("cargo metadata works in this repository")
}

#[test]
fn dependencies_point_down() {
    let metadata = metadata("Cargo.toml");
    let nodes: Vec<_> = metadata.workspace_packages().into_iter().map(direction::Node::from).collect();
    assert!(nodes.len() > 5, "cargo metadata named only {nodes:?}");
    assert_none(&direction::violations(&nodes));
    assert_none(&direction::unplaced(&nodes));
}

#[test]
fn pure_crates_name_nothing_impure() {
    for name in purity::PURE {
        assert_none(&purity::in_sources(name).unwrap());
    }
}

#[test]
fn pure_crates_are_built_with_nothing_impure() {
    for name in purity::PURE {
        assert_none(&purity::in_dependencies(name).unwrap());
    }
}

#[test]
fn unsafe_is_in_sys_modules() {
    let files = rust_files().unwrap();
    let told = files.iter().flat_map(|f| names::stray_unsafe(f, &read(f).unwrap()).unwrap());
    assert_none(&told.collect::<Vec<_>>());
}

#[test]
fn error_numbers_of_the_server_stay_below_the_vfs() {
    let lib = root().join("crates/remoor-server/src/lib.rs");
    let modules = source::modules(&lib, None).unwrap();
    let told = modules.iter().flat_map(|m| names::stray_errno(&m.file, &m.mentions));
    assert_none(&told.collect::<Vec<_>>());
}

#[test]
fn promises_of_the_mount_have_tests() {
    let tests =
        rust_files().unwrap().into_iter().filter(|f| f.to_string_lossy().contains("remoor/tests/mounted/"));
    let names = tests.flat_map(|f| promises::tests_in(&read(&f).unwrap())).collect();
    let page = root().join("docs/semantics.md");
    assert_none(&promises::violations(&page, &read(&page).unwrap(), &names));
}

#[test]
fn files_are_short() {
    let files = rust_files().unwrap();
    assert!(files.iter().any(|f| f.ends_with(file!())), "the walk does not find this file");
    let told = files.iter().filter_map(|f| size::violation(f, &read(f).unwrap(), size::MAX_SOURCE_LINES));
    assert_none(&told.collect::<Vec<_>>());
    let file = root().join("ARCHITECTURE.md");
    if file.exists() {
        let told = size::violation(&file, &read(&file).unwrap(), size::MAX_ARCHITECTURE_LINES);
        assert_none(told.as_slice());
    }
}

#[test]
fn licences_are_permissive() {
    let allowed = licence::allowed(&read(Path::new(&root().join("deny.toml"))).unwrap()).unwrap();
    assert_none(&licence::copyleft(&allowed));
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        assert_none(&licence::violations(&metadata(manifest).packages, &allowed));
    }
}
