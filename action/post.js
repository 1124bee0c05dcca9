// The step at the end of the job, however that ended: gives back what the job was granted. A
// request whose end main.js has not seen is known to call-me release, by the notes of request.
'use strict'

const { spawnSync } = require('node:child_process')
const { inputOf, fail, mask, stateOf, childEnv } = require('./job.js')

function release(args) {
  const { status, stdout, error } = spawnSync(stateOf('program'), ['release', ...args], {
    env: childEnv(), stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8',
  })
  if (error) throw error
  if (stdout.trim()) console.log(stdout.trim())
  return status
}

function main() {
  mask(inputOf('key'))
  if (!stateOf('environments')) return // the request was never sent
  const leases = JSON.parse(stateOf('leases') || 'null')
  const calls = leases
    ? leases.map(({ environment, fence }) => [`--fence=${fence}`, '--', environment])
    : [['--', ...JSON.parse(stateOf('environments'))]]
  for (const args of calls) {
    const code = release(args)
    const name = args.slice(args.indexOf('--') + 1).join(', ')
    if (code === 76 && !leases) continue // nothing was seen to be granted, and nothing is held
    if (code === 76) fail(`${name} was lost before the job ended: another job may have used it meanwhile`)
    else if (code !== 0) fail(`${name} was not given back, it comes free when its ttl ends`)
  }
}

try {
  main()
} catch (error) {
  fail(error.message)
}
