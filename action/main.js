// The step itself: puts call-me on the PATH, and waits for a slot with call-me request. What
// post.js needs is saved before the request is sent, since this step may be killed at any time.
'use strict'

const { spawn } = require('node:child_process')
const { install } = require('./install.js')
const { inputOf, isTrue, environments, fail, mask, setOutput, saveState, childEnv } = require('./job.js')

// The exit codes of call-me request that are no mistake.
const endings = { 75: 'no slot in time', 77: 'a newer run has taken the place in the queue' }

function requestArgs(names) {
  const args = ['request', '--json']
  for (const slot of inputOf('slot').split(/\s+/).filter(Boolean)) args.push(`--slot=${slot}`)
  for (const flag of ['again', 'no-wait']) if (isTrue(flag)) args.push(`--${flag}`)
  const supersede = inputOf('supersede')
  if (isTrue('supersede')) args.push('--supersede')
  else if (supersede && supersede.toLowerCase() !== 'false') args.push(`--supersede=${supersede}`)
  return [...args, '--', ...names]
}

// request starts call-me request, passes on the signals of a cancel, and returns its exit code
// and what it has printed on stdout.
function request(program, names) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, requestArgs(names), { env: childEnv(), stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (part) => { text += part })
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
      process.on(signal, () => { if (process.platform !== 'win32') child.kill(signal) })
    }
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code: signal ? 1 : code, text }))
  })
}

function report(text) {
  const answer = JSON.parse(text)
  const leases = answer.leases || [answer]
  saveState('leases', JSON.stringify(leases.map(({ environment, fence }) => ({ environment, fence }))))
  const each = (value) => (answer.leases
    ? leases.map((l) => `${l.environment}=${value(l)}`).join('\n')
    : String(value(answer)))
  setOutput('slot', each((l) => l.slot))
  setOutput('fence', each((l) => l.fence))
  setOutput('holder', leases[0].holder || '')
  setOutput('leases', JSON.stringify(answer))
}

async function main() {
  mask(inputOf('key'))
  const names = environments()
  if (names.length === 0 && !isTrue('install-only')) {
    return fail('the input environment is missing or empty; to install call-me alone: install-only: true')
  }
  if (names.length > 0 && isTrue('install-only')) {
    return fail('environment and install-only exclude each other')
  }
  if (inputOf('key') && inputOf('oidc-audience')) return fail('key and oidc-audience exclude each other')
  const program = install()
  if (isTrue('install-only')) return
  saveState('program', program)
  saveState('environments', JSON.stringify(names))
  const { code, text } = await request(program, names)
  process.exitCode = code
  if (code === 0) report(text)
  if (code === 77) setOutput('superseded', 'true')
  if (endings[code]) fail(`${names.join(', ')}: ${endings[code]}`)
}

main().catch((error) => fail(error.message))
