/* An application of libnfs that changes a directory and believes what it is told. Exits with 1 at the first error. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <nfsc/libnfs.h>

static void check(struct nfs_context *nfs, const char *what, int result)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, nfs_get_error(nfs));
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct nfs_context *nfs = nfs_init_context();
	struct nfs_url *url = nfs_parse_url_dir(nfs, argc == 2 ? argv[1] : "");
	struct nfsfh *file;

	if (url == NULL) {
		fprintf(stderr, "%s\n", nfs_get_error(nfs));
		return 1;
	}
	check(nfs, "mount", nfs_mount(nfs, url->server, url->path));
	check(nfs, "mkdir", nfs_mkdir(nfs, "/dir"));
	check(nfs, "creat", nfs_creat(nfs, "/dir/file", 0644, &file));
	check(nfs, "close", nfs_close(nfs, file));
	check(nfs, "link", nfs_link(nfs, "/dir/file", "/dir/link"));
	check(nfs, "symlink", nfs_symlink(nfs, "file", "/dir/symlink"));
	check(nfs, "rename", nfs_rename(nfs, "/dir/file", "/dir/renamed"));
	check(nfs, "unlink", nfs_unlink(nfs, "/dir/renamed"));
	check(nfs, "unlink", nfs_unlink(nfs, "/dir/link"));
	check(nfs, "unlink", nfs_unlink(nfs, "/dir/symlink"));
	check(nfs, "rmdir", nfs_rmdir(nfs, "/dir"));
	nfs_destroy_url(url);
	nfs_destroy_context(nfs);
	return 0;
}
