import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConfidentialRig, guestLuks2, hostLuks, MIB, NOTHING_LEFT } from '../support/confidential.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

/**
 * A caller with Exec is root in the guest: what takes the key there may be a program of its own. It names a key of the
 * operator's, and reads it. A key that is bound to `host_luks` does not get there.
 */

const KEY = 'the key that opens every disk of the house';
const STOLEN = '/run/stolen';
/** Keeps its standard input (the key for the format, and again to open it), and then does what cryptsetup does. */
const SPY = `set -e
real=$(command -v cryptsetup)
mv "$real" "$real.real"
cat > "$real" <<END
#!/bin/sh
case "\\$*" in *key-file*) [ -s ${STOLEN} ] || cat > ${STOLEN}; exec $real.real "\\$@" < ${STOLEN};; esac
exec $real.real "\\$@"
END
chmod 755 "$real"`;

async function stolen(rig: ConfidentialRig): Promise<string> {
  const bytes = await rig.guest(`cat ${STOLEN} 2> /dev/null; true`);
  return bytes.replaceAll(KEY, 'KEY ');
}

const skip = await realVmSkipReason();

describe("cryptsetup in the guest is the caller's own", { skip, timeout: 300_000 }, () => {
  for (const bound of [false, true]) {
    it(
      bound ? 'a key that is bound to host_luks is refused, and goes nowhere' : 'a key that is not bound is read',
      async () => {
        await using rig = await ConfidentialRig.start({
          config: bound ? { key_bindings: 'file:/* kind=host_luks' } : {},
        });
        const file = await rig.daemon.keyFile('house', KEY);
        await rig.guest(SPY);
        const path = await rig.daemon.rawFile('guest.raw', 32 * MIB);
        const attach = rig.attach('guest', { rawFile: { path }, ...guestLuks2({ providedKey: { file } }) });
        if (bound) assertRefusal(await refusal(attach), { code: 'PERMISSION_DENIED', reason: 'KEY_BOUND' });
        else await attach;
        assert.equal(await stolen(rig), bound ? '' : 'KEY KEY ');
        if (!bound) await rig.detach('guest');
        assert.deepEqual(await rig.left(), NOTHING_LEFT);
        // What it is bound to works.
        const other = await rig.daemon.rawFile('host.raw', 32 * MIB);
        await rig.attach('host', { rawFile: { path: other }, ...hostLuks({ key: { file } }) });
        await rig.detach('host');
        assert.equal(await stolen(rig), bound ? '' : 'KEY KEY ');
      },
    );
  }
});
