// Which call-me the action starts: that on the PATH, or that of a release, whose archive is
// fetched with curl, which knows the machine's proxy, and checked.
'use strict'

const { execFileSync, spawnSync } = require('node:child_process')
const crypto = require('node:crypto')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { inputOf, addPath } = require('./job.js')

const isWindows = process.platform === 'win32'

// archiveName returns the name of the archive for this machine, as .goreleaser.yaml makes it.
function archiveName() {
  const system = isWindows ? 'windows' : process.platform
  const arch = { x64: 'amd64', arm64: 'arm64' }[process.arch] || process.arch
  return `call-me_${system}_${arch}.${isWindows ? 'zip' : 'tar.gz'}`
}

function download(url, file) {
  execFileSync('curl', ['--fail', '--silent', '--show-error', '--location', '--retry', '3', '--output', file, url], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
}

// wantedSum returns the SHA-256 sum that the archive must have: the input, or that of the
// release's own list.
function wantedSum(base, archive, folder) {
  if (inputOf('sha256')) return inputOf('sha256').toLowerCase()
  const list = path.join(folder, 'checksums.txt')
  download(`${base}/checksums.txt`, list)
  const lines = fs.readFileSync(list, 'utf8').split('\n').map((line) => line.trim().split(/\s+/))
  const line = lines.find(([, name]) => name === archive)
  if (!line) throw new Error(`${base}/checksums.txt has no ${archive}: there is no release for this machine`)
  return line[0].toLowerCase()
}

// fetchRelease puts call-me of the release into a folder of the job and on the PATH of the steps
// that follow, and returns its path.
function fetchRelease(version) {
  const releases = inputOf('releases').replace(/\/+$/, '')
  const base = version ? `${releases}/download/${encodeURIComponent(version)}` : `${releases}/latest/download`
  const folder = fs.mkdtempSync(path.join(process.env.RUNNER_TEMP || os.tmpdir(), 'call-me-'))
  const archive = archiveName()
  const file = path.join(folder, archive)
  download(`${base}/${archive}`, file)
  const sum = crypto.createHash('sha256').update(fs.readFileSync(file)).digest('hex')
  const wanted = wantedSum(base, archive, folder)
  if (sum !== wanted) throw new Error(`${archive} has the SHA-256 sum ${sum}, want ${wanted}: it is not used`)
  const tar = isWindows ? path.join(process.env.SystemRoot || 'C:\\Windows', 'System32', 'tar.exe') : 'tar'
  const program = isWindows ? 'call-me.exe' : 'call-me'
  execFileSync(tar, ['-xf', file, '-C', folder, program], { stdio: ['ignore', 'inherit', 'inherit'] })
  fs.rmSync(file)
  addPath(folder)
  return path.join(folder, program)
}

// ownRelease returns the release of the action itself, if the workflow names one such as
// lgug2z/call-me@v1.0.0; empty for v1 and for a commit.
function ownRelease() {
  const ref = process.env.GITHUB_ACTION_REF || ''
  return /^v\d+\.\d+\.\d+/.test(ref) ? ref : ''
}

// install returns how to start call-me.
function install() {
  const version = inputOf('version')
  if (inputOf('sha256') && !version) throw new Error('sha256 needs version: the latest release changes')
  const isThere = !version && !spawnSync('call-me', ['--version']).error
  const program = isThere ? 'call-me' : fetchRelease(version || ownRelease())
  console.log(execFileSync(program, ['--version'], { encoding: 'utf8' }).trim())
  return program
}

module.exports = { install }
