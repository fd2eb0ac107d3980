'use strict';
const said = document.getElementById('said');
const header = document.querySelector('.age');
const age = document.getElementById('age');

function show() {
  const seconds = Math.max(0, Math.floor(Date.now() / 1000) - Number(header.dataset.made));
  const stale = seconds > Number(header.dataset.stale);
  header.classList.toggle('stale', stale);
  const old = seconds < 120 ? seconds + ' s' : Math.floor(seconds / 60) + ' min';
  age.textContent = old + ' old' + (stale ? ': stale, make a new one' : '');
}

function select(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

async function copy(button) {
  const element = document.getElementById(button.dataset.of);
  let done = false;
  try {
    await navigator.clipboard.writeText(element.textContent);
    done = true;
  } catch {
    // Some browsers give a page from a file no access to the clipboard.
    select(element);
    done = document.execCommand('copy');
  }
  said.textContent = done ? button.getAttribute('aria-label').replace('Copy', 'Copied:') : 'Selected; press Ctrl-C.';
}

for (const button of document.querySelectorAll('button')) {
  button.addEventListener('click', () => copy(button));
}
if (header.dataset.made) {
  show();
  setInterval(show, 1000);
}
