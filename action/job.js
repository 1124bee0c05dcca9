// What the steps of the action share: its inputs, what it tells GitHub, and the variables with
// which it starts call-me. call-me does everything else.
'use strict'

const crypto = require('node:crypto')
const fs = require('node:fs')
const os = require('node:os')

const inputOf = (name) => (process.env[`INPUT_${name.toUpperCase()}`] || '').trim()

const isTrue = (name) => inputOf(name).toLowerCase() === 'true'

// environments returns the names in the input environment.
const environments = () => inputOf('environment').split(/[\s,]+/).filter(Boolean)

// command prints a command of GitHub Actions, whose data may have any character.
function command(name, data) {
  const escaped = data.replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A')
  process.stdout.write(`::${name}::${escaped}\n`)
}

const fail = (message) => {
  command('error title=call-me', message)
  process.exitCode = process.exitCode || 1
}

// mask keeps the key out of the log, each line of it.
function mask(key) {
  for (const line of key.split(/\r?\n/)) {
    if (line.trim()) command('add-mask', line.trim())
  }
}

// add adds an entry to one of the files with which a step gives GitHub a value.
function add(variable, entry) {
  if (process.env[variable]) fs.appendFileSync(process.env[variable], entry + os.EOL)
}

function addValue(variable, name, value) {
  const end = crypto.randomUUID()
  add(variable, [`${name}<<${end}`, value, end].join(os.EOL))
}

const setOutput = (name, value) => addValue('GITHUB_OUTPUT', name, value)
const saveState = (name, value) => addValue('GITHUB_STATE', name, value)
const stateOf = (name) => process.env[`STATE_${name}`] || ''
const addPath = (folder) => add('GITHUB_PATH', folder)

// The inputs that call-me reads from a variable.
const variables = {
  host: 'CALL_ME_HOST',
  key: 'CALL_ME_API_KEY',
  'oidc-audience': 'CALL_ME_OIDC_AUDIENCE',
  'ca-file': 'CALL_ME_CA_FILE',
  holder: 'CALL_ME_HOLDER',
  reason: 'CALL_ME_REASON',
  priority: 'CALL_ME_PRIORITY',
  timeout: 'CALL_ME_TIMEOUT',
  ttl: 'CALL_ME_TTL',
  'max-hold': 'CALL_ME_MAX_HOLD',
}

// leg returns the name of this leg of a matrix, from its values; empty without a matrix.
function leg() {
  let values = null
  try {
    values = JSON.parse(inputOf('matrix') || 'null')
  } catch {
    // not JSON: somebody has set the input
  }
  const words = Object.values(values || {}).map((v) => (typeof v === 'object' ? JSON.stringify(v) : String(v)))
  return words.join('/')
}

// childEnv returns the variables with which call-me is started. A key or an audience that is an
// input counts in place of every other. All legs of a matrix have the same GITHUB_JOB, from
// which call-me makes the holder and what --supersede compares: each gets its own.
function childEnv() {
  const env = { ...process.env }
  if (inputOf('key') || inputOf('oidc-audience')) {
    for (const name of ['API_KEY', 'API_KEY_FILE', 'ID_TOKEN', 'TOKEN_FILE', 'OIDC_AUDIENCE']) {
      delete env[`CALL_ME_${name}`]
    }
    delete env.API_KEY
    delete env.API_KEY_FILE
  }
  for (const [input, variable] of Object.entries(variables)) {
    if (inputOf(input)) env[variable] = inputOf(input)
  }
  if (leg() && env.GITHUB_JOB) env.GITHUB_JOB += `/${leg()}`
  return env
}

module.exports = {
  inputOf, isTrue, environments, fail, mask, setOutput, saveState, stateOf, addPath, childEnv,
}
