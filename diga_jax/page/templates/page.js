'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

  // Theme: as the system has it, or as chosen.
  const theme = document.getElementById('theme');
  const themes = ['auto', 'light', 'dark'];
  const stored = () => { try { return localStorage.getItem('theme'); } catch { return null; } };
  const setTheme = name => {
    document.documentElement.dataset.theme = name;
    theme.textContent = `theme: ${name}`;
    try { localStorage.setItem('theme', name); } catch { /* not kept */ }
  };
  setTheme(themes.includes(stored()) ? stored() : 'auto');
  theme.hidden = false;
  theme.addEventListener('click', () => {
    const next = themes.indexOf(document.documentElement.dataset.theme) + 1;
    setTheme(themes[next % themes.length]);
  });

  // Charts.
  const views = {};
  for (const place of all('.chart')) {
    const name = place.dataset.panel;
    vegaEmbed(place, data.specs[name], {actions: false, renderer: 'svg'})
      .then(made => { views[name] = made.view; place.dataset.drawn = 'true'; });
  }
  document.getElementById('tag')?.addEventListener('change', event => {
    views.loss?.signal('tag', event.target.value).runAsync();
  });

  // Pictures.
  const dialog = document.getElementById('zoom');
  for (const [index, place] of all('.strip').entries()) {
    const strip = data.strips[index];
    const slider = place.querySelector('input');
    let id = Object.keys(strip.images)[0];
    const latest = (frames, position) =>
      Math.max(-1, ...Object.keys(frames).map(Number).filter(frame => frame <= position));
    const show = () => {
      const position = Number(slider.value);
      const name = strip.frames[position];
      place.querySelector('output').textContent = name;
      slider.setAttribute('aria-valuetext', name);
      for (const figure of all('figure', place)) {
        const column = figure.dataset.column;
        const fixed = column === 'image' || column === 'truth';
        const frames = strip.images[id][column] ?? {};
        const frame = latest(frames, fixed ? 0 : position);
        const image = figure.querySelector('img');
        const about = figure.querySelector('span');
        if (frame < 0) {
          image.removeAttribute('src');
          about.textContent = 'not yet';
        } else {
          image.src = frames[frame];
          about.textContent = fixed ? '' : `of ${strip.frames[frame]}`;
        }
        image.alt = `${column} of ${id} ${about.textContent}`.trim();
      }
    };
    slider.addEventListener('input', show);
    for (const button of all('.thumbnails button', place)) {
      const shown = strip.images[button.dataset.id];
      button.querySelector('img').src = Object.values(shown.image ?? Object.values(shown)[0])[0];
      button.addEventListener('click', () => {
        id = button.dataset.id;
        for (const other of all('.thumbnails button', place)) {
          other.setAttribute('aria-pressed', String(other === button));
        }
        show();
      });
    }
    for (const button of all('.zoomable', place)) {
      button.addEventListener('click', () => {
        const image = button.querySelector('img');
        if (!image.hasAttribute('src')) return;
        dialog.querySelector('img').src = image.src;
        dialog.querySelector('img').alt = image.alt;
        dialog.querySelector('p').textContent = image.alt;
        dialog.showModal();
      });
    }
    show();
  }
  dialog.querySelector('.close').addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', event => { if (event.target === dialog) dialog.close(); });

  // Confusion matrices: one at a time.
  document.getElementById('matrix')?.addEventListener('change', event => {
    for (const matrix of all('.confusion')) {
      matrix.hidden = matrix.dataset.matrix !== event.target.value;
    }
  });

  // Panels at full size.
  const setFull = (panel, full) => {
    panel.classList.toggle('full', full);
    const button = panel.querySelector('.enlarge');
    button.setAttribute('aria-pressed', String(full));
    button.textContent = full ? 'back' : 'full size';
    window.dispatchEvent(new Event('resize'));
  };
  for (const panel of all('.panel')) {
    const button = panel.querySelector('.enlarge');
    button.hidden = false;
    button.addEventListener('click', () => setFull(panel, !panel.classList.contains('full')));
  }
  document.addEventListener('keydown', event => {
    if (event.key === 'Escape' && !dialog.open) {
      for (const panel of all('.panel.full')) setFull(panel, false);
    }
  });
  window.addEventListener('beforeprint', () => all('details').forEach(each => { each.open = true; }));
})();
