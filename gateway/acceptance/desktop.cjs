// The part of program.cjs about computer use, of which no server of ours has
// anything yet: it only tells what is missing.
'use strict'

const region = { x: 0, y: 0, width: 10, height: 10 }
const rows = {
  '': { start: [], getStatus: [], getProcessStatus: ['xvfb'], restartProcess: ['xvfb'], getProcessLogs: ['xvfb'], getProcessErrors: ['xvfb'] },
  mouse: { getPosition: [], move: [5, 5], click: [5, 5], drag: [5, 5, 9, 9], scroll: [5, 5, 'down', 1] },
  keyboard: { type: ['x'], press: ['a'], hotkey: ['ctrl+c'] },
  screenshot: { takeFullScreen: [], takeRegion: [region], takeCompressed: [], takeCompressedRegion: [region] },
  display: { getInfo: [], getWindows: [] },
  recording: { start: [], list: [], get: ['r'], stop: ['r'], download: ['r', 'recording'], delete: ['r'] },
  accessibility: { getTree: [], findNodes: [], focusNode: ['n'], invokeNode: ['n'], setNodeValue: ['n', 'v'] },
}

module.exports = async function desktop(d, { step }) {
  const sb = await d.create()
  for (const [part, calls] of Object.entries(rows)) {
    const object = part ? sb.computerUse[part] : sb.computerUse
    for (const [name, args] of Object.entries(calls)) await step(object, `computerUse${part && '.' + part}`, name, () => object[name](...args))
  }
  await step(sb.computerUse, 'computerUse', 'stop', () => sb.computerUse.stop())
  await d.delete(sb)
}
