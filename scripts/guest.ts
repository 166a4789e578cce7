import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { buildGuestWith, ensureGuest, guestDirectory } from './guest/build.ts';

const help = `Builds the reference guest: build/guest/vmlinuz and build/guest/initrd.img, and programs for any guest beside them.

Usage: npm run guest -- [--force] [--suite NAME] [--kernel PACKAGE] [--print]

  --force           build again even if nothing has changed
  --suite NAME      take the kernel of another Debian suite: bullseye, trixie, sid
  --kernel PACKAGE  take this kernel package (default: linux-image-cloud-amd64)
  --print           print the packages with their versions and checksums as JSON (the manifest)
  --help            this text

The guest is made of Debian packages that apt-get downloads (no root needed), of the files in scripts/guest/rootfs and of
programs in src/guest/programs. The same packages and the same compiler give the same bytes. With --suite or --kernel it
is built into a directory of its own below build/guests, and build/guest stays as it is. See docs/guest.md.
`;

const { values } = parseArgs({
  options: {
    force: { type: 'boolean' },
    suite: { type: 'string' },
    kernel: { type: 'string' },
    print: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  },
});

if (values.help === true) {
  process.stdout.write(help);
} else {
  const { suite, kernel } = values;
  const { directory, manifest } =
    suite === undefined && kernel === undefined
      ? { directory: guestDirectory, manifest: (await ensureGuest({ force: values.force === true })).manifest }
      : await buildGuestWith({
          ...(suite === undefined ? {} : { suite }),
          ...(kernel === undefined ? {} : { packageName: kernel }),
        });
  if (values.print === true) {
    console.log(JSON.stringify(manifest, undefined, 2));
  } else {
    console.log(`kernel ${manifest.kernelVersion}`);
    for (const [name, { sha256, bytes }] of Object.entries(manifest.files)) {
      const path = relative(process.cwd(), join(directory, name));
      const size = bytes < 2 ** 20 ? `${bytes} bytes` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
      console.log(`${path}  ${size}  sha256 ${sha256}`);
    }
  }
}
