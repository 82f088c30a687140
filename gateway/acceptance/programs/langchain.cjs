// @langchain/daytona: the sandbox backend of deepagents, called as its agents
// call it. All file tools but upload and download are scripts in the sandbox.
'use strict'
const { load, main, same, has } = require('./harness.cjs')
const { DaytonaSandbox } = load('@langchain/daytona')

main(async (step) => {
  const sb = await step('create', () => DaytonaSandbox.create({ language: 'python', envVars: { GREETING: 'hello there' }, timeout: 30 }))
  if (!sb) return
  await step('exec', async () => {
    const r = await sb.execute('echo "$GREETING"; exit 3')
    same([r.exitCode, r.output.trim()], [3, 'hello there'])
  })
  await step('files', async () => {
    const home = (await sb.execute('pwd')).output.trim()
    const name = `${home}/notes/a.txt`
    const up = await sb.uploadFiles([[name, new TextEncoder().encode('one\ntwo needle\n')]])
    same(up[0].error ?? null, null)
    const down = await sb.downloadFiles([name, `${home}/none`])
    same(new TextDecoder().decode(down[0].content), 'one\ntwo needle\n')
    same(down[1].error, 'file_not_found')
    has(JSON.stringify(await sb.read(name)), 'two needle')
    same((await sb.write(`${home}/notes/b.txt`, 'written\n')).error ?? undefined, undefined)
    same((await sb.edit(`${home}/notes/b.txt`, 'written', 'edited')).error ?? undefined, undefined)
    has((await sb.execute(`cat ${home}/notes/b.txt`)).output, 'edited')
    has(JSON.stringify(await sb.ls(`${home}/notes`)), 'b.txt')
    has(JSON.stringify(await sb.grep('needle', `${home}/notes`)), 'a.txt')
    has(JSON.stringify(await sb.glob('*.txt', `${home}/notes`)), 'b.txt')
  })
  const id = sb.id
  await step('find', async () => same((await DaytonaSandbox.fromId(id)).id, id))
  await step('delete', async () => {
    await sb.close()
    same(sb.isRunning, false)
  })
})
