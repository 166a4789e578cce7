import { serveJobs } from './files/serve.ts';
import { KEY_JOBS } from './keys/jobs.ts';
import { VOLUME_JOBS } from './volume/jobs.ts';

/** A helper of the daemon's, which touches files that callers name (files/helpers.ts). Not for people to start. */
serveJobs({ ...KEY_JOBS, ...VOLUME_JOBS });
