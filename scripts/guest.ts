import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { ensureGuest, guestDirectory } from './guest/build.ts';

const help = `Builds the reference guest: build/guest/vmlinuz and build/guest/initrd.img, and programs for any guest beside them.

Usage: npm run guest -- [--force] [--print]

  --force   build again even if nothing has changed
  --print   print the packages with their versions and checksums as JSON (the manifest)
  --help    this text

The guest is made of Debian packages that apt-get downloads (no root needed), of the files in scripts/guest/rootfs and of
programs in src/guest/programs. The same packages and the same compiler give the same bytes. See docs/guest.md.
`;

const { values } = parseArgs({
  options: { force: { type: 'boolean' }, print: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
});

if (values.help === true) {
  process.stdout.write(help);
} else {
  const { manifest } = await ensureGuest({ force: values.force === true });
  if (values.print === true) {
    console.log(JSON.stringify(manifest, undefined, 2));
  } else {
    console.log(`kernel ${manifest.kernelVersion}`);
    for (const [name, { sha256, bytes }] of Object.entries(manifest.files)) {
      const path = relative(process.cwd(), join(guestDirectory, name));
      const size = bytes < 2 ** 20 ? `${bytes} bytes` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
      console.log(`${path}  ${size}  sha256 ${sha256}`);
    }
  }
}
